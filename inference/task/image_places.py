"""The files of the test images."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

from inference.basics.errors import ImagesError
from inference.manifest.task import ID, PLACEHOLDER

# In order of preference if a folder has one image in several formats; those of inference/images/formats.py.
COMMON = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
RARE = (".jpe", ".jfif", ".avif", ".jp2", ".j2k", ".apng", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".tga")
SUFFIXES = COMMON + RARE
RANKS = {suffix: rank for rank, suffix in enumerate(SUFFIXES)}

Rows = Mapping[str, Mapping[str, str]]
"""Image id -> column of the table of images -> cell."""


def find_images(
    folder: Path,
    ids: Iterable[str],
    file: str = f"{{{ID}}}",
    rows: Rows | None = None,
    follow_links: bool = False,
) -> list[Path | None]:
    """Find the file of each id; None for a missing file, and for one outside of the folder.

    `file`: the place of an image in the folder, see inference/manifest/task.py; its suffix may be left out. `rows`: of
    the table of images, if `file` names columns of it. `follow_links`: links may lead out of the folder. Raises
    ImagesError: the folder is missing, cannot be listed, or has no image of these ids.
    """
    places = [place_image(name, file, rows) for name in ids]
    files = Folder(folder, follow_links)
    if not any(files.list_parent("")) and all(place is None or "/" not in place for place in places):
        raise ImagesError(f"{folder}: found no image; wanted files such as {file.replace('{id}', 'ID')}{SUFFIXES[0]}")
    found = [None if place is None else files.find(place) for place in places]
    if not any(found):
        raise ImagesError(
            f"{folder}: found {files.count()} but none of the {len(found)} ids of the sample submission; "
            "check that --images and --sample belong together, and `task.images.path` of the manifest"
        )
    return found


def place_image(name: str, file: str, rows: Rows | None = None) -> str | None:
    """Return the path of an id's image in the folder; None if the table has no row of it, or the path leads outside."""
    cells = {} if rows is None else rows.get(name)
    if cells is None:
        return None
    known = {**cells, ID: name}
    path = PLACEHOLDER.sub(lambda found: known[found[1]][: int(found[2]) if found[2] else None], file)
    parts = PurePosixPath(path).parts
    return None if not parts or path.startswith("/") or ".." in parts or "\0" in path else "/".join(parts)


def list_images(folder: Path, most: int | None = None) -> list[Path]:
    """List the images, or the first `most`, of a folder and its subfolders, by name.

    Raises ImagesError: a folder cannot be listed.
    """
    return list(islice(_walk_images(folder), most))


class Folder:
    """A folder of images and its subfolders, each listed once."""

    def __init__(self, path: Path, follow_links: bool = False) -> None:
        """`follow_links`: links may lead out of it. Raises ImagesError: no such folder, or it cannot be listed."""
        self._path, self._follows = path, follow_links
        self._names: dict[str, frozenset[str]] = {}
        self._images: dict[str, dict[str, str]] = {}
        self._home = os.path.realpath(path)
        try:
            self._list("")
        except (FileNotFoundError, NotADirectoryError):
            given = f"{path}: no such folder of images; give the folder of the test images with --images"
            raise ImagesError(given) from None
        except OSError as error:
            raise ImagesError(f"{path}: cannot be listed: {error.strerror or error}") from error

    def find(self, place: str) -> Path | None:
        """Return the file at a relative path, whose suffix may be missing; None: no such file, or a link to outside."""
        parent, _, name = place.rpartition("/")
        images = self.list_parent(parent)
        found = name if name in self._names[parent] and _has_suffix(name) else images.get(name)
        return self._path / parent / found if found else None

    def list_parent(self, parent: str) -> Mapping[str, str]:
        """Return the images of a subfolder, stem -> name; none if it cannot be listed or lies outside."""
        if parent not in self._images:
            try:
                self._list(parent)
            except OSError:
                self._names[parent], self._images[parent] = frozenset(), {}
        return self._images[parent]

    def count(self) -> str:
        """Describe the number of images in the folders listed so far."""
        return f"{sum(map(len, self._images.values()))} images"

    def _list(self, parent: str) -> None:
        names, ranked = set[str](), dict[str, tuple[int, str]]()
        if parent and not self._is_inside(str(self._path / parent)):
            raise NotADirectoryError(parent)
        with os.scandir(self._path / parent) as entries:
            for entry in entries:
                if entry.is_symlink() and not self._is_inside(entry.path):
                    continue
                names.add(entry.name)
                stem, suffix = os.path.splitext(entry.name)
                if suffix.lower() in RANKS:
                    rank = RANKS[suffix.lower()]
                    ranked[stem] = min(ranked.get(stem, (rank, entry.name)), (rank, entry.name))
        self._names[parent] = frozenset(names)
        self._images[parent] = {stem: name for stem, (_, name) in ranked.items()}

    def _is_inside(self, path: str) -> bool:
        return self._follows or Path(os.path.realpath(path)).is_relative_to(self._home)


def _has_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in RANKS


def _walk_images(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ImagesError(f"{folder}: cannot be listed: {error.strerror or error}") from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if _has_suffix(name))
