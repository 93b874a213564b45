"""The images of a training folder: which of them can be read, and their pixels, decoded once into a cache."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from inference.basics.errors import ImageError, ImagesError, TrainingError
from inference.basics.files import make_folder, replace_file
from inference.images.geometry import Draft, Geometry, resize_image
from inference.images.read import read_image, read_squares
from inference.task.image_places import SUFFIXES, find_images
from zoo.text import NAMED


@dataclass(frozen=True)
class Pictures:
    """Images by row of train.csv.

    `paths`: None where there is no file; `squares`: all of them decoded, (images, side, side, 3) of uint8, mapped from
    a file, or None: then each is read when it is asked for; `draft`: how far the kernel decodes JPEG files reduced.
    """

    paths: Sequence[Path | None]
    squares: NDArray[np.uint8] | None = None
    draft: Draft | None = None

    def read(self, row: int) -> Image.Image:
        """An upright RGB image, never reduced; raises ImageError."""
        if self.squares is not None:
            return Image.fromarray(self.squares[row])
        return read_image(self._find(row))

    def show(self, row: int, geometry: Geometry) -> NDArray[np.uint8]:
        """What the kernel shows a model, as `Picture.squares` has it; raises ImageError."""
        if self.squares is not None:
            return resize_image(self.read(row), geometry)
        return read_squares(self._find(row), [geometry], draft=self.draft)[geometry]

    def _find(self, row: int) -> Path:
        path = self.paths[row]
        assert path is not None, "rows without a file are not readable and so never asked for"
        return path


def find_pictures(folder: Path, ids: Sequence[str], allow_missing: bool = False) -> list[Path | None]:
    """The file of each image of train.csv.

    Raises TrainingError counting the ids without one and naming the first, unless `allow_missing`; and in any case
    where all are missing.
    """
    try:
        paths = find_images(folder, ids)
    except ImagesError:
        raise TrainingError(
            f"{folder}: holds none of the {len(ids)} images of train.csv; wanted files such as {ids[0]}{SUFFIXES[0]}"
        ) from None
    missing = [image for image, path in zip(ids, paths, strict=True) if path is None]
    if missing and not allow_missing:
        raise TrainingError(
            f"{folder}: lacks {len(missing)} of the {len(ids)} images of train.csv, "
            f"{', '.join(missing[:NAMED])} first; bring them, or give --allow-missing to go on without"
        )
    return paths


def check_pictures(paths: Sequence[Path | None]) -> tuple[NDArray[np.bool_], list[str]]:
    """Which images can be decoded, (images,), and why others cannot; a missing one is not counted among these."""

    def check(row: int) -> str | None:
        path = paths[row]
        if path is not None:
            read_image(path)
        return None

    return _visit(check, paths, "checking images")


def open_cache(
    paths: Sequence[Path | None], ids: Sequence[str], geometry: Geometry, folder: Path
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
    """Every image as a square of the kernel's making, (images, size, size, 3), kept decoded in a file of `folder`.

    Also which of them can be read and why others cannot, as check_pictures. The file is made where there is none for
    this geometry and these files (name, length and time of change of each); an interrupted making leaves none.
    """
    make_folder(folder)
    described = [asdict(geometry), list(ids), [_describe(path) for path in paths]]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    path, faults_path = folder / f"{geometry.size}-{key}.npy", folder / f"{geometry.size}-{key}.faults.json"
    if path.exists() and faults_path.exists():
        known = json.loads(faults_path.read_text(encoding="utf-8"))
        return np.load(path, mmap_mode="r"), np.array(known["readable"], np.bool_), known["faults"]
    shape = (len(ids), geometry.size, geometry.size, 3)
    with replace_file(path) as temporary:
        # Claims the room at once: a full disk is an error here, in a mapped file it would be a signal that kills.
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            os.posix_fallocate(file.fileno(), file.tell(), int(np.prod(shape)))
        squares = np.load(temporary, mmap_mode="r+")

        def fill(row: int) -> None:
            source = paths[row]
            if source is not None:
                squares[row] = read_squares(source, [geometry])[geometry]

        readable, faults = _visit(fill, paths, f"decoding images to {geometry.size} px")
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
        told = list(tqdm(pool.map(visit, range(len(paths))), text, len(paths), unit="img", mininterval=1))
    readable = np.array([path is not None and fault is None for path, fault in zip(paths, told, strict=True)])
    return readable, [fault for fault in told if fault is not None]


def _describe(path: Path | None) -> tuple[str, int, int] | None:
    if path is None:
        return None
    stat = path.stat()
    return path.name, stat.st_size, stat.st_mtime_ns
