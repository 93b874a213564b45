"""train.csv: the training images and their labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.errors import TrainingError
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
