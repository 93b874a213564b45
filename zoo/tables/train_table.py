"""train.csv: the training images and their labels; tables of the truth of other images have the same form."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TableError
from inference.basics.memory import measure_available
from inference.basics.tables import read_columns, read_header
from inference.manifest.labels import Labels
from inference.manifest.task import ID, Task

IMAGE = "image"
LABELS, TARGETS, VALUE = "labels", "targets", "value"
SUM_ERROR = 1e-3  # largest difference from 1 of the sum of an image's soft labels


@dataclass(frozen=True)
class Table:
    """The rows of train.csv in file order."""

    ids: tuple[str, ...]
    targets: NDArray[Any]
    """(images, labels): bool, whether the image has the label; float64 for soft labels, and for numbers, which are in
    units of the task's range."""
    images: tuple[str, ...] | None = None
    """Path of each image in the competition's folder; None: train/ID with any suffix."""

    def order_targets(self, ids: Sequence[str]) -> NDArray[Any]:
        """Return the targets of the images `ids`, (ids, labels), in that order."""
        rows = {image: row for row, image in enumerate(self.ids)}
        return self.targets[[rows[image] for image in ids]]


def read_table(path: Path, labels: Labels, task: Task, limit: int | None = None) -> Table:
    """Read train.csv, or its first `limit` rows.

    Its columns are `id`, perhaps `image`, and `labels`, `targets` or `value`, as `init` writes them; else those of the
    sample submission. Raises TableError naming the file, the image and the cell: no file, no row, a duplicate id, an
    unknown label, no number, several labels where the task has one.
    """
    columns = find_columns(path, task)
    reader = TruthReader(labels, task, columns[-1])
    rows: dict[str, Any] = {}
    images: list[str] = []
    for image, *place, text in read_columns(path, columns):
        if len(rows) == limit:
            break
        if image in rows:
            raise TableError(f"{path}: found image {image} twice; wanted unique ids")
        try:
            rows[image] = reader.read(text)
        except ValueError as error:
            raise TableError(f"{path}: image {image}: found {columns[-1]} {text!r}; {error}") from None
        images += place
    if not rows:
        raise TableError(f"{path}: has no row; wanted one for each image")
    check_memory(path, len(rows), len(labels.ids))
    return Table(tuple(rows), reader.join(list(rows.values())), tuple(images) if len(columns) > 2 else None)


def check_memory(path: Path, images: int, labels: int) -> None:
    """Raise TableError if a table of all images and labels, a byte each, exceeds the free memory."""
    needed, free = images * labels, measure_available()
    if needed > free:
        raise TableError(
            f"{path}: {images:,} images and {labels:,} labels need {needed / 1e9:.1f} GB of memory; found "
            f"{free / 1e9:.1f} GB free; use fewer rows, or a machine with more memory"
        )


def find_columns(path: Path, task: Task) -> tuple[str, ...]:
    """Return the columns to read from a table: of the ids, of the images if it has one, and of the truth.

    Raises TableError: no such file.
    """
    form = task.submission
    if not path.is_file():
        wanted = f"{task.id_column} and {form.column}" if form.layout == "list" else "id and labels"
        raise TableError(f"{path}: no such file; wanted a table with the columns {wanted}")
    header = read_header(path)
    truth = next((column for column in (LABELS, TARGETS, VALUE) if column in header), None)
    if truth is None or ID not in header:
        return task.id_column, form.column
    return (ID, *([IMAGE] if IMAGE in header else []), truth)


class TruthReader:
    """Reads the cells of one column of the truth."""

    def __init__(self, labels: Labels, task: Task, column: str) -> None:
        self._labels, self._task, self._column = labels, task, column
        self._columns = {label: column for column, label in enumerate(labels.ids)}
        self._names = {name: column for column, name in enumerate(labels.names)}

    def read(self, text: str) -> Any:
        """Return the columns of the labels of a cell, or its numbers. Raises ValueError saying what was wanted."""
        if self._column == TARGETS:
            return self._read_targets(text)
        if self._task.type == "regression":
            return self._read_value(text)
        places = self._read_labels(text)
        if self._task.type == "multiclass" and len(set(places)) != 1:
            raise ValueError("wanted one label, as `task.type` is multiclass")
        return places

    def join(self, rows: Sequence[Any]) -> NDArray[Any]:
        """Return the targets of all rows, (images, labels)."""
        if self._column == TARGETS or self._task.type == "regression":
            return np.array(rows, np.float64).reshape(len(rows), len(self._labels.ids))
        targets = np.zeros((len(rows), len(self._labels.ids)), np.bool_)
        for row, places in enumerate(rows):
            targets[row, places] = True
        return targets

    def _read_labels(self, text: str) -> list[int]:
        if text in self._names and not text.isdecimal():  # a whole number is an id, also if a name is one
            return [self._names[text]]
        # As people write lists: "0 9", "0,9", "[0, 9]", "0.0".
        words = re.split(r"[\s,;|]+", re.sub(r"^[\[(]\s*|\s*[\])]$", "", text))
        places = []
        for word in filter(None, words):
            bare = word.strip("'\"")
            whole = re.fullmatch(r"(-?\d+)(\.0+)?", bare)
            if whole and int(whole[1]) in self._columns:
                places.append(self._columns[int(whole[1])])
            elif bare in self._names:
                places.append(self._names[bare])
            elif whole:
                raise ValueError(f"label {whole[1]} is not in labels.csv")
            else:
                raise ValueError("wanted ids or names of labels; correct the cell, or leave it empty for no label")
        return places

    def _read_targets(self, text: str) -> list[float]:
        values = [_read_number(word) for word in text.split()]
        if len(values) != len(self._labels.ids):
            raise ValueError(f"{len(values)} numbers; wanted {len(self._labels.ids)}, one per label of labels.csv")
        if not all(0 <= value <= 1 for value in values):
            raise ValueError("wanted numbers from 0 to 1")
        if self._task.type == "multiclass" and abs(sum(values) - 1) > SUM_ERROR:
            raise ValueError(f"their sum is {sum(values):g}; wanted 1")
        return values

    def _read_value(self, text: str) -> float:
        low, high = self._task.value_range
        return (_read_number(text) - low) / (high - low)


def _read_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError("wanted a number; correct the cell or remove the row")
    return value
