"""train.csv: the training images and their labels; truth.csv and submissions have the same form."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TableError
from inference.basics.tables import read_columns
from inference.manifest.labels import Labels
from inference.task.submission import HEADER, parse_label_ids


@dataclass(frozen=True)
class Table:
    """The rows of train.csv in file order."""

    ids: tuple[str, ...]
    targets: NDArray[np.bool_]
    """(images, labels): whether the image has the label."""

    def order_targets(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Return the targets of the images `ids`, (ids, labels), in that order."""
        rows = {image: row for row, image in enumerate(self.ids)}
        return self.targets[[rows[image] for image in ids]]


def read_table(path: Path, labels: Labels, limit: int | None = None) -> Table:
    """Read train.csv, or its first `limit` rows.

    Raises TableError naming the file and the image: no file, no row, a duplicate id, a label that is no whole number
    or is not in labels.csv.
    """
    if not path.is_file():
        raise TableError(f"{path}: no such file; wanted a table with the columns {' and '.join(HEADER)}")
    columns = {label: column for column, label in enumerate(labels.ids)}
    rows: dict[str, list[int]] = {}
    for image, text in read_columns(path, HEADER):
        if len(rows) == limit:
            break
        if image in rows:
            raise TableError(f"{path}: found image {image} twice; wanted unique ids")
        try:
            label_ids = parse_label_ids(text)
        except ValueError:
            raise TableError(f"{path}: image {image}: found attribute_ids {text!r}; wanted whole numbers") from None
        for label in label_ids:
            if label not in columns:
                raise TableError(f"{path}: image {image}: found label {label}; wanted labels of labels.csv")
        rows[image] = [columns[label] for label in label_ids]
    if not rows:
        raise TableError(f"{path}: has no row; wanted one for each image")
    targets = np.zeros((len(rows), len(labels.ids)), np.bool_)
    for row, places in enumerate(rows.values()):
        targets[row, places] = True
    return Table(tuple(rows), targets)
