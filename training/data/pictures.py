"""The images of a training folder: finding and checking them, and a cache of their decoded pixels."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from inference.basics.errors import ImageError, TrainingError
from inference.basics.files import make_folder, replace_file
from inference.images.geometry import Draft, Geometry, resize_image
from inference.images.read import read_image, read_squares
from inference.task.image_places import SUFFIXES, Folder
from zoo.text import NAMED


@dataclass(frozen=True)
class Pictures:
    """The images of train.csv by row."""

    paths: Sequence[Path | None]
    """None for an image without a file."""
    squares: NDArray[np.uint8] | None = None
    """All images decoded, (images, height, width, 3), mapped from a file; None: each image is read when needed."""
    draft: Draft | None = None
    """How far the kernel may reduce JPEG files while decoding them."""

    def read(self, row: int) -> Image.Image:
        """Return an upright RGB image, never reduced; raises ImageError."""
        if self.squares is not None:
            return Image.fromarray(self.squares[row])
        return read_image(self._find(row))

    def show(self, row: int, geometries: Sequence[Geometry]) -> Mapping[Geometry, NDArray[np.uint8]]:
        """Return the kernel's inputs of a model, as in `Picture.squares`, from one decoding; raises ImageError."""
        if self.squares is not None:
            return {geometry: resize_image(self.read(row), geometry) for geometry in geometries}
        return read_squares(self._find(row), geometries, draft=self.draft)

    def _find(self, row: int) -> Path:
        path = self.paths[row]
        assert path is not None, "rows without a file are unreadable and must not be read"
        return path


def find_pictures(
    folder: Path, ids: Sequence[str], allow_missing: bool = False, files: Sequence[str] | None = None
) -> list[Path | None]:
    """Return the file of each image of train.csv, None for a missing one.

    `files`: of the images, relative to `folder`; None: ID with any suffix. Raises TrainingError: files are missing and
    `allow_missing` is False, or all files are missing.
    """
    if files is not None:
        places = [folder / file for file in files]
        paths = [path if path.is_file() else None for path in places]
    else:
        paths = locate_images(folder, ids)
    missing = [place for place, path in enumerate(paths) if path is None]
    if len(missing) == len(ids):
        wanted = f"{ids[0]}{SUFFIXES[0]}" if files is None else files[0]
        raise TrainingError(
            f"{folder}: holds none of the {len(ids)} images of train.csv; wanted files such as {wanted}"
        )
    if missing and not allow_missing:
        named = ", ".join((files or ids)[place] for place in missing[:NAMED])
        raise TrainingError(
            f"{folder}: no file for {len(missing)} of the {len(ids)} images of train.csv, "
            f"such as {named}; add them, or skip them with --allow-missing"
        )
    return paths


def locate_images(folder: Path, ids: Sequence[str]) -> list[Path | None]:
    """Return the file of each id, named ID or ID with the suffix of an image; None for a missing one, or no folder.

    Unlike the kernel's find_images, it follows links to other folders: data sets at home are often made of links.
    """
    if not folder.is_dir():
        return [None] * len(ids)
    files = Folder(folder, follow_links=True)
    return [files.find(image) for image in ids]


def check_pictures(paths: Sequence[Path | None]) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which images can be decoded, (images,), and an error for each file that cannot; none for missing files."""

    def check(row: int) -> str | None:
        path = paths[row]
        if path is not None:
            read_image(path)
        return None

    return _visit(check, paths, "checking images")


def open_cache(
    paths: Sequence[Path | None], ids: Sequence[str], geometry: Geometry, folder: Path
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
    """Return all images as the kernel's squares, (images, height, width, 3), mapped from a cache file in `folder`.

    Also returns which images can be read, and errors, as check_pictures does. A new file is made for each geometry and
    list of image files (name, length and modification time), atomically.
    """
    make_folder(folder)
    described = [asdict(geometry), list(ids), [_describe(path) for path in paths]]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    size = "x".join(map(str, geometry.size))
    path, faults_path = folder / f"{size}-{key}.npy", folder / f"{size}-{key}.faults.json"
    if path.exists() and faults_path.exists():
        known = json.loads(faults_path.read_text(encoding="utf-8"))
        return np.load(path, mmap_mode="r"), np.array(known["readable"], np.bool_), known["faults"]
    shape = (len(ids), *geometry.size, 3)
    with replace_file(path) as temporary:
        # Allocates the disk space now: a full disk raises an error here, but SIGBUS when a mapped file is written.
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            os.posix_fallocate(file.fileno(), file.tell(), int(np.prod(shape)))
        squares = np.load(temporary, mmap_mode="r+")

        def fill(row: int) -> None:
            source = paths[row]
            if source is not None:
                squares[row] = read_squares(source, [geometry])[geometry]

        readable, faults = _visit(fill, paths, f"decoding images to {size} px")
        squares.flush()
    with replace_file(faults_path) as temporary:
        temporary.write_text(json.dumps({"readable": readable.tolist(), "faults": faults}), encoding="utf-8")
    return np.load(path, mmap_mode="r"), readable, faults


def _visit(
    work: Callable[[int], object], paths: Sequence[Path | None], text: str
) -> tuple[NDArray[np.bool_], list[str]]:
    def visit(row: int) -> str | None:
        try:
            work(row)
        except ImageError as error:
            return str(error)
        return None

    # Threads, not processes: Pillow decodes and resizes without the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(tqdm(pool.map(visit, range(len(paths))), text, len(paths), unit="img", mininterval=1))
    readable = np.array([path is not None and fault is None for path, fault in zip(paths, results, strict=True)])
    return readable, [fault for fault in results if fault is not None]


def _describe(path: Path | None) -> tuple[str, int, int] | None:
    if path is None:
        return None
    stat = path.stat()
    return path.name, stat.st_size, stat.st_mtime_ns
