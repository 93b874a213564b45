"""The image files of a competition's folder, and the patterns of their places by id."""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from inference.basics.errors import OptionError
from inference.manifest.task import ID, PLACEHOLDER
from inference.task.image_places import SUFFIXES

LOOKED_AT = 300  # ids from which a pattern is found
MOST_WAYS = 64  # to write one path as a pattern
PARTS = ("train", "test")


class ImageFiles:
    """All image files below a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self.folders: list[str] = []
        """Relative paths of the folders."""
        self.paths: list[str] = []
        """Relative paths of the images, sorted."""
        for parent, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = Path(parent).relative_to(folder).as_posix()
            self.folders.append(inside)
            start = "" if inside == "." else f"{inside}/"
            self.paths += [start + name for name in sorted(names) if not name.startswith("._") and is_image(name)]
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for path in self.paths:
            name = path.rpartition("/")[2]
            self._by_name.setdefault(name, []).append(path)
            self._by_stem.setdefault(os.path.splitext(name)[0], []).append(path)

    def find(self, name: str) -> list[str]:
        """Return the files of an id, which may hold the suffix, and folders before the name."""
        last = name.rpartition("/")[2]
        found = self._by_name.get(last, []) or self._by_stem.get(last, [])
        if "/" not in name:
            return found
        return [
            path
            for path in found
            if f"/{path}".endswith(f"/{name}") or f"/{path}".rpartition(".")[0].endswith(f"/{name}")
        ]

    def share(self, names: Iterable[str]) -> float:
        """Return the share of ids that have a file."""
        some = spread(list(names))
        return sum(bool(self.find(name)) for name in some) / max(1, len(some))

    def count(self, folder: str) -> int:
        """Return the number of images in a folder and its subfolders."""
        return sum(folder == "." or path.startswith(f"{folder}/") for path in self.paths)

    def list_classes(self, sample_ids: Sequence[str]) -> tuple[pd.DataFrame, str]:
        """Return the columns id, image and class of training images without a table, and where the classes were found.

        The class is the name of an image's folder, or of its file before the first dot. Ids have a suffix if the
        sample's have. Raises OptionError: neither.
        """
        roots = [path for path in self.paths if "train" in path.partition("/")[0].lower()]
        if not roots:
            raise OptionError(
                "--train: cannot be known: found no table and no folder of training images; name the table"
            )
        suffixed = any(is_image(name) for name in sample_ids)
        classes = {path: PurePosixPath(path).parent.name for path in roots}
        nested, source = len(set(classes.values())) > 1, "folders of the training images"
        if not nested:
            classes = {path: PurePosixPath(path).name.partition(".")[0] for path in roots}
            source = "file names of the training images, before the first dot"
            if not 1 < len(set(classes.values())) < len(roots):
                raise OptionError(
                    f"--train: cannot be known: found no table, and {roots[0]} and others are in no "
                    "folders of classes; name the table"
                )
        names = [PurePosixPath(path).name if suffixed else PurePosixPath(path).stem for path in roots]
        if len(set(names)) < len(names):  # the same name in two classes
            names = [f"{classes[path]}/{name}" for path, name in zip(roots, names, strict=True)]
        return pd.DataFrame({"id": names, "image": roots, "class": list(classes.values())}), source


@dataclass(frozen=True)
class Place:
    """A pattern, and how many of the ids that were looked at it explains."""

    pattern: str
    found: int
    of: int
    table: str | None = None
    """The table of the columns that the pattern names."""
    table_id: str = ID


def find_pattern(
    files: ImageFiles, ids: Sequence[str], part: str, rows: Mapping[str, Sequence[str]] | None = None
) -> Place | None:
    """Return the pattern of most ids' files; None: no file has the name of an id.

    `part`: 'train' or 'test'; decides between patterns of as many files. `rows`: columns, a cell per id, that may be
    names of folders.
    """
    places = spread(range(len(ids)))
    counts: Counter[str] = Counter()
    for place in places:
        cells = {name: column[place] for name, column in (rows or {}).items()}
        patterns = {way for path in files.find(ids[place]) for way in describe(path, ids[place], cells)}
        counts.update(patterns)
    if not counts:
        return None
    other = PARTS[1 - PARTS.index(part)]

    def rank(pattern: str) -> tuple[int, bool, bool, int, str]:
        fixed = PLACEHOLDER.sub("", pattern).lower()
        return (counts[pattern], part in fixed, other not in fixed, -pattern.count("{"), pattern)

    best = max(counts, key=rank)
    return Place(best, counts[best], len(places))


def describe(path: str, name: str, cells: Mapping[str, str]) -> list[str]:
    """Return the patterns of an id's path: each folder as it is, as the start of the id, or as a cell of a column."""
    parents = path.split("/")[: -1 - name.count("/")]
    ways = []
    for parent in parents:
        way = [parent]
        if name.startswith(parent) and parent != name:
            way.append(f"{{{ID}:{len(parent)}}}")
        way += [f"{{{column}}}" for column, cell in cells.items() if cell == parent]
        ways.append(way)
    return ["/".join((*way, f"{{{ID}}}")) for way in itertools.islice(itertools.product(*ways), MOST_WAYS)]


def find_path_column(files: ImageFiles, frame: pd.DataFrame, id_column: str, part: str) -> Place | None:
    """Return the pattern of the column of most paths of images, such as test/{file_name}; None: no such column."""
    best: Place | None = None
    other = PARTS[1 - PARTS.index(part)]
    for column in map(str, frame.columns):
        values = [value for value in spread(list(frame[column])) if is_image(value)]
        if column == id_column or 2 * len(values) < len(spread(list(frame[column]))):
            continue
        starts: Counter[str] = Counter()
        for value in values:
            starts.update({path.removesuffix(value) for path in files.find(value) if f"/{path}".endswith(f"/{value}")})
        start = max(starts, key=lambda text: (starts[text], part in text, other not in text, text), default="")
        place = Place(f"{start}{{{column}}}", starts[start] if starts else 0, len(values))
        if best is None or place.found > best.found:
            best = place
    return best


def spread(items: Sequence[str] | Sequence[int]) -> list:  # type: ignore[type-arg]
    """Return at most LOOKED_AT items at equal distances."""
    step = max(1, -(-len(items) // LOOKED_AT))
    return list(items[::step])


def is_image(name: str) -> bool:
    """Return whether a file's name has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES
