"""The images of a training folder and their labels, as Kaggle lays iMet out: labels.csv, train.csv, train/ID.png."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.errors import ImageError, ImagesError, TrainingError
from inference.images import SUFFIXES, Geometry, find_images, read_squares
from inference.labels import Labels
from inference.tables import parse_label_ids, read_columns


@dataclass(frozen=True)
class Table:
    """train.csv in file order; `targets`: which labels each image has, (images, labels)."""

    ids: tuple[str, ...]
    targets: NDArray[np.bool_]


def read_table(path: Path, labels: Labels, limit: int | None = None) -> Table:
    """The rows of train.csv, or its first `limit` rows.

    Raises TrainingError naming the file and the image: no file, no row, an id given twice, a label that is no whole
    number or that labels.csv lacks.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no such file; wanted a table with the columns id and attribute_ids")
    columns = {label: column for column, label in enumerate(labels.ids)}
    rows: dict[str, list[int]] = {}
    for image, text in read_columns(path, ("id", "attribute_ids")):
        if len(rows) == limit:
            break
        if image in rows:
            raise TrainingError(f"{path}: image {image} is given twice; ids must differ")
        try:
            label_ids = parse_label_ids(text)
        except ValueError:
            raise TrainingError(f"{path}: image {image}: found attribute_ids {text!r}, wanted whole numbers") from None
        for label in label_ids:
            if label not in columns:
                raise TrainingError(f"{path}: image {image} has label {label}, which labels.csv lacks")
        rows[image] = [columns[label] for label in label_ids]
    if not rows:
        raise TrainingError(f"{path}: has no row; wanted one for each image")
    targets = np.zeros((len(rows), len(labels.ids)), np.bool_)
    for row, places in enumerate(rows.values()):
        targets[row, places] = True
    return Table(tuple(rows), targets)


def split_folds(targets: NDArray[np.bool_], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each image, each label spread evenly over the folds; the same for the same targets and seed.

    `targets`: (images, labels). Method: Sechidis, Tsoumakas and Vlahavas, On the Stratification of Multi-Label Data,
    2011. Seconds for 12,000 images, a minute and a half for the 109,237 of iMet.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    if folds > len(targets):
        raise TrainingError(f"--folds: found {folds}, wanted at most the number of images, {len(targets)}")
    owners = np.empty(len(targets), np.int64)
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(targets)), targets)):
        owners[held_out] = fold
    return owners


def cache_images(
    folder: Path, ids: Sequence[str], geometry: Geometry
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
    """Every image once, as the kernel will see it: squares (images, size, size, 3), which were read, why others not.

    The square of an image that was not read is undefined. Raises TrainingError where none can be read.
    """
    from tqdm import tqdm

    try:
        paths = find_images(folder, ids)
    except ImagesError:
        raise TrainingError(
            f"{folder}: holds none of the {len(ids)} images of train.csv; wanted files such as {ids[0]}{SUFFIXES[0]}"
        ) from None
    squares = np.empty((len(ids), geometry.size, geometry.size, 3), np.uint8)

    def cache_image(row: int) -> str | None:
        path = paths[row]
        if path is None:
            return f"{ids[row]}: no such image in {folder}"
        try:
            squares[row] = read_squares(path, [geometry])[geometry]
        except ImageError as error:
            return str(error)
        return None

    # Threads, not processes: Pillow decodes and resizes without the interpreter lock, and the cache is not copied.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        progress = tqdm(pool.map(cache_image, range(len(ids))), "reading images", len(ids), unit="img", mininterval=1)
        faults = list(progress)
    readable = np.array([fault is None for fault in faults])
    reasons = [fault for fault in faults if fault is not None]
    if not readable.any():
        raise TrainingError(
            f"{folder}: none of the {len(ids)} images of train.csv can be read; the first: {reasons[0]}"
        )
    return squares, readable, reasons
