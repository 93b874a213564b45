"""The images on which an export is measured: decoded once for all models, and their rows in a table of the truth."""

import contextlib
import dataclasses
import functools
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from inference.basics.errors import ImageError, ImagesError, OutputError
from inference.basics.files import hash_file
from inference.images.geometry import Geometry, read_geometry
from inference.images.read import Picture, read_picture
from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.manifest.task import Task
from inference.task.image_places import list_images
from zoo.metrics.selection import Truth
from zoo.tables.train_table import Table, read_table
from zoo.text import NAMED

SMALLEST = 16  # the fewest images to measure parity on
CALIBRATED = 3  # one in three images is for calibration, up to the number below; the others are measured
MOST_CALIBRATED = 128
Arrays = Mapping[Geometry, NDArray[np.uint8]]
"""By geometry: (images, height, width, 3)."""


@dataclass(frozen=True)
class Examples:
    """Real images."""

    measured: tuple[Path, ...]
    """For parity."""
    arrays: Arrays
    """All images, those for parity first."""
    calibrated: tuple[Path, ...] = ()
    """For the calibration of int8."""
    truth: Truth | None = None
    """(measured images, labels); None if unknown."""

    @functools.cached_property
    def hashes(self) -> list[str]:
        """sha256 of each file."""
        return [hash_file(path) for path in (*self.measured, *self.calibrated)]


def read_examples(
    folder: Path,
    most: int,
    calibrate: bool,
    models: Iterable[Model],
    labels: Labels,
    task: Task,
    train: Path | None = None,
) -> Examples:
    """Read the first `most` images of a folder by name; with `calibrate`, a third of them, at most 128, is set apart.

    `models`: each gets the images in its geometry. `train`: a train.csv with the truth; images without a row are
    skipped, and so are broken images, with a note. Raises ImagesError: too few; OutputError: no room for
    the decoded images; or TableError.
    """
    table = read_table(train, labels, task) if train else None
    found = list_all_images(folder)
    rows = {} if table is None else find_rows(folder, found, table)
    found = [path for path in found if table is None or path in rows]
    geometries = dict.fromkeys(choose_geometry(model) for model in models)
    read, broken, arrays = read_arrays(found, most, geometries)
    wanted = SMALLEST + SMALLEST // (CALIBRATED - 1) if calibrate else SMALLEST
    if len(read) < wanted:
        which = f"images with a row in {train}" if train else "images"
        unread = f" and {len(broken)} broken ({_name(broken, folder)})" if broken else ""
        purpose = "parity and int8 calibration" if calibrate else "parity"
        raise ImagesError(f"{folder}: found {len(read)} {which}{unread}; wanted {wanted} for {purpose}; add images")
    if broken:
        count = f"{len(broken)} broken image{'s' if len(broken) > 1 else ''}"
        print(f"note: {folder}: skipped {count}: {_name(broken, folder)}", file=sys.stderr)
    split = len(read) - min(len(read) // CALIBRATED, MOST_CALIBRATED) if calibrate else len(read)
    truth = None if table is None else table.targets[[rows[path] for path in read[:split]]]
    return Examples(tuple(read[:split]), arrays, tuple(read[split:]), truth)


def choose_geometry(model: Model) -> Geometry:
    """Return the geometry in which a model is measured: of whole images, also where it sees tiles."""
    return dataclasses.replace(read_geometry(model), tiles=None)


def read_arrays(
    paths: Sequence[Path], most: int, geometries: Iterable[Geometry]
) -> tuple[list[Path], list[Path], Arrays]:
    """Read images in order until `most` are read, each once for all geometries.

    Returns the images read, those that are broken, and the arrays, which lie in temporary files: at the largest
    sizes they would fill the memory. Raises OutputError: no room for them.
    """
    read: list[Path] = []
    broken: list[Path] = []
    arrays: dict[Geometry, NDArray[np.uint8]] = {}
    try:
        with contextlib.ExitStack() as stack:
            files = {geometry: stack.enter_context(tempfile.TemporaryFile()) for geometry in geometries}
            with tqdm(total=min(most, len(paths)), desc="read images", unit="img", leave=False, mininterval=1) as bar:
                for path in paths:
                    if len(read) == most:
                        break
                    picture = _read_whole(path, files)
                    if picture is None:
                        broken.append(path)
                        continue
                    for geometry, file in files.items():
                        file.write(picture.squares[geometry].tobytes())
                    read.append(path)
                    bar.update()
            for geometry, file in files.items() if read else ():
                file.flush()
                arrays[geometry] = np.memmap(file, np.uint8, "r", shape=(len(read), *geometry.shape, 3))
    except OSError as error:
        place = tempfile.gettempdir()
        raise OutputError(f"{place}: cannot hold the decoded images: {error.strerror or error}") from error
    return read, broken, arrays


def list_all_images(folder: Path) -> list[Path]:
    """List the images of a folder and its subfolders, by path. Raises ImagesError: the folder cannot be listed."""
    return sorted(list_images(folder))


def find_rows(folder: Path, paths: Sequence[Path], table: Table) -> dict[Path, int]:
    """Return the row in a table of each image in `folder` that has one.

    An image belongs to a row by the path that the table has for it, of which `folder` may be the first part; or else by
    its id: the image's path in `folder` or its name, with the suffix or without. A name of two images belongs to none.
    """
    places: dict[str, Path | None] = {}
    for path in paths:
        inside = PurePosixPath(path.relative_to(folder).as_posix())
        for key in {str(inside), str(inside.with_suffix("")), inside.name, inside.stem}:
            places[key] = None if key in places else path
    rows: dict[Path, int] = {}
    for row, name in enumerate(table.ids):
        parts = () if table.images is None else PurePosixPath(table.images[row]).parts
        keys = [*("/".join(parts[start:]) for start in range(len(parts))), name]
        found = next((places[key] for key in keys if places.get(key)), None)
        if found is not None:
            rows[found] = row
    return rows


def _read_whole(path: Path, geometries: Iterable[Geometry]) -> Picture | None:
    """Return the picture of a file; None: it cannot be read, or is damaged."""
    try:
        picture = read_picture(path, geometries)
    except ImageError:
        return None
    return None if picture.note else picture


def _name(paths: Sequence[Path], folder: Path) -> str:
    more = len(paths) - NAMED
    shown = ", ".join(path.relative_to(folder).as_posix() for path in paths[:NAMED])
    return f"{shown} and {more} more" if more > 0 else shown
