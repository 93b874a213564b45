"""The type of the labels, the list of labels, and the truth of each image in the form of a zoo's train.csv."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import OptionError, TableError
from inference.manifest.task import Metric, TaskType
from packing.init.read.cells import (
    MISSING,
    are_numbers,
    find_separator,
    is_whole,
    parse_number,
    read_labels_of_cells,
    read_numbers,
    shorten,
)
from packing.init.read.sample import SampleSheet
from packing.init.read.truth import FOLDER_CLASS, Truth
from packing.init.settings import Settings

Rows = Sequence[Sequence[str]]
PROBABILITY_METRICS = ("roc_auc", "log_loss")


@dataclass(frozen=True)
class Answers:
    """The labels, and the truth of the images in their order in the table."""

    type: TaskType
    label_ids: tuple[int, ...]
    names: tuple[str, ...]
    header: Literal["labels", "targets", "value"]
    """Column of train.csv: see zoo/tables/train_table.py."""
    marks: tuple[tuple[int, ...], ...] = ()
    """Per image, the columns of its labels, of `labels`."""
    numbers: NDArray[np.float64] | None = None
    """(images, labels), of `targets` and `value`."""
    whole: bool = False
    """The truth names labels by whole numbers, their ids."""
    reason: str = ""
    """Why it is of this type."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of labels of each image, (images,)."""
        if self.numbers is not None:
            return np.array([np.count_nonzero(row) for row in self.numbers], np.int64)
        return np.array([len(row) for row in self.marks], np.int64)

    @property
    def cells(self) -> list[str]:
        """The cells of train.csv."""
        if self.numbers is not None:
            return [" ".join(f"{value:.9g}" for value in row) for row in self.numbers]
        return [" ".join(str(self.label_ids[column]) for column in row) for row in self.marks]

    def make_targets(self) -> NDArray[np.generic]:
        """Return the truth as zoo/tables/train_table.py reads it, (images, labels)."""
        if self.numbers is not None:
            return self.numbers
        targets = np.zeros((len(self.marks), len(self.names)), np.bool_)
        for row, columns in enumerate(self.marks):
            targets[row, list(columns)] = True
        return targets


def read_answers(truth: Truth, sample: SampleSheet, settings: Settings, metric: Metric | None) -> Answers:
    """Read the truth as the type of --type, or as the type that suits the table, the sample and the metric.

    Raises TableError naming the image and the cell, or OptionError: an option is needed.
    """
    if len(truth.columns) > 1:
        return read_label_columns(truth, settings)
    kind = settings.type or guess_type(truth, sample, metric)
    if kind == "regression":
        return read_values(truth, sample)
    if kind == "binary":
        return read_binary(truth, sample, settings)
    return read_lists(truth, sample, settings, kind)


def guess_type(truth: Truth, sample: SampleSheet, metric: Metric | None) -> TaskType | None:
    """Return binary or regression if a column holds numbers or two names; None: it holds labels."""
    if len(sample.columns) > 1:
        return None
    cells = {cell for cell in truth.cells() if cell and cell.lower() not in MISSING}
    wanted = "" if metric is None else metric.name
    fractional = any(are_numbers([cell]) and not is_whole(cell) for cell in sample.cells)
    if not cells or not are_numbers(cells):
        asked = bool(sample.cells) and are_numbers(sample.cells) and not any(map(is_whole, cells))
        return "binary" if asked and len(cells) == 2 and not set(sample.cells) & cells else None
    if wanted == "rmse":
        return "regression"
    if {parse_number(cell) for cell in cells} <= {0.0, 1.0}:
        if wanted == "" and not fractional:
            raise OptionError(
                "--metric: cannot be known from tables; wanted one of: accuracy, macro_f1, micro_f1, kappa for the "
                "label 0 or 1; roc_auc, log_loss for the probability of 1"
            )
        return "binary" if fractional or wanted in PROBABILITY_METRICS else None
    if not all(parse_number(cell).is_integer() for cell in cells):
        return "binary" if wanted in PROBABILITY_METRICS else "regression"
    return "regression" if fractional else None


def read_label_columns(truth: Truth, settings: Settings) -> Answers:
    """Read a column per label: 0 and 1, votes, or shares of an image."""
    columns = truth.columns
    if settings.type in ("binary", "regression"):
        raise OptionError(f"--type: found {settings.type}; wanted multilabel or multiclass for {len(columns)} columns")
    cells = [truth.cells(column) for column in range(len(columns))]
    numbers = read_numbers(cells, lambda row, column: f"{name_image(truth, row)}: {columns[column]}")
    check_cells(truth, cells, numbers >= 0, "a number from 0")
    label_ids = tuple(range(len(columns)))
    if ((numbers == 0) | (numbers == 1)).all():
        marks = tuple(tuple(map(int, np.flatnonzero(row))) for row in numbers)
        one = all(len(row) == 1 for row in marks)
        if settings.type == "multiclass":
            check_single(truth, [[columns[column] for column in row] for row in marks])
        kind: TaskType = settings.type or ("multiclass" if one else "multilabel")
        return Answers(kind, label_ids, columns, "labels", marks, reason="exactly one 1 per row" if one else "0 and 1")
    if settings.type == "multilabel":
        check_cells(truth, cells, numbers <= 1, "a number from 0 to 1")
        return Answers("multilabel", label_ids, columns, "targets", numbers=numbers, reason="--type")
    empty = np.flatnonzero(numbers.sum(axis=1) == 0)
    if len(empty):
        shown = ", ".join(column[empty[0]] for column in cells)
        raise TableError(f"{name_image(truth, int(empty[0]))}: found the votes {shown}; wanted one above 0")
    shares = numbers / numbers.sum(axis=1, keepdims=True)
    return Answers("multiclass", label_ids, columns, "targets", numbers=shares, reason="votes")


def read_values(truth: Truth, sample: SampleSheet) -> Answers:
    """Read a number per image."""
    numbers = read_numbers([truth.cells()], lambda row, _: f"{name_image(truth, row)}: {truth.columns[0]}")
    if numbers.min() == numbers.max():
        raise TableError(f"{truth.describe()}: found {numbers.min():g} for every image; wanted different numbers")
    return Answers("regression", (0,), (sample.columns[0],), "value", numbers=numbers, reason="numbers")


def read_binary(truth: Truth, sample: SampleSheet, settings: Settings) -> Answers:
    """Read 0, 1 or a share per image, or one of two names, of which --positive is the 1."""
    cells, names = truth.cells(), (sample.columns[0],)
    choices = sorted(set(cells))
    if not are_numbers(cells) and len(choices) == 2 and not set(map(str.lower, choices)) & {*MISSING, ""}:
        if settings.positive not in choices:
            raise OptionError(
                f"--positive: {'cannot be known' if settings.positive is None else f'found {settings.positive!r}'}: "
                f"wanted the class whose probability is asked, one of: {', '.join(choices)}"
            )
        marks = tuple((0,) if cell == settings.positive else () for cell in cells)
        return Answers("binary", (0,), names, "labels", marks, reason=f"{settings.positive} of two classes")
    numbers = read_numbers([cells], lambda row, _: f"{name_image(truth, row)}: {truth.columns[0]}")
    check_cells(truth, [cells], (numbers >= 0) & (numbers <= 1), "a number from 0 to 1")
    if ((numbers == 0) | (numbers == 1)).all():
        marks = tuple((0,) if value else () for value in numbers[:, 0])
        return Answers("binary", (0,), names, "labels", marks, reason="0 and 1")
    return Answers("binary", (0,), names, "targets", numbers=numbers, reason="shares")


def read_lists(truth: Truth, sample: SampleSheet, settings: Settings, kind: TaskType | None) -> Answers:
    """Read a column of one label or several labels per image."""
    wide = len(sample.columns) > 1
    known = frozenset(sample.columns) if wide else frozenset((*truth.names, *truth.names.values()))
    cells = truth.cells()
    separator = None
    if truth.columns != (FOLDER_CLASS,):
        try:
            separator = settings.read_separator(lambda: find_separator(cells, known, truth.describe()))
        except OptionError:
            if kind != "multiclass":
                raise
    rows, whole = read_labels_of_cells(cells, separator, lambda row: f"{name_image(truth, row)}: {truth.columns[0]}")
    several = any(len(row) > 1 for row in rows)
    chosen = kind or ("multilabel" if several else "multiclass")
    if chosen == "multiclass":
        check_single(truth, rows)
    reason = "several labels in a row" if several else "one label in every row"
    words = {word for row in rows for word in row}
    if wide:
        labels = dict(zip(sample.columns, range(len(sample.columns)), strict=True))
        names, ids, whole = sample.columns, tuple(range(len(sample.columns))), False
        check_known(truth, rows, labels, f"the columns of {sample.path}")
    elif truth.names:
        names, ids = name_apart(truth.names), parse_ids(truth)
        whole = len(words & set(truth.names)) >= len(words & set(truth.names.values()))
        keys = list(truth.names) if whole else list(truth.names.values())
        labels = {key: column for column, key in enumerate(keys)}
        check_known(truth, rows, labels, "labels of labels.csv" if truth.labels_file else "`categories`")
    else:
        order = sorted(words, key=int) if whole else sorted(words)
        names = tuple(order)
        ids = tuple(map(int, order)) if whole else tuple(range(len(order)))
        labels = {word: column for column, word in enumerate(order)}
    if len(names) < 2 and chosen == "multiclass":
        raise TableError(f"{truth.describe()}: found one class, {names[0]}; wanted at least two")
    marks = tuple(tuple(sorted(labels[word] for word in row)) for row in rows)
    return Answers(chosen, ids, names, "labels", marks, whole=whole, reason=reason)


def parse_ids(truth: Truth) -> tuple[int, ...]:
    """Return the label ids that a file lists; raises TableError: one is no whole number."""
    for label in truth.names:
        if not is_whole(label):
            raise TableError(f"{truth.labels_file or truth.source}: found label id {label!r}; wanted whole numbers")
    return tuple(int(shorten(label)) for label in truth.names)


def name_apart(names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of labels; of those with equal names also the id, as names are unique."""
    found = list(names.values())
    return tuple(f"{name} ({label})" if found.count(name) > 1 else name for label, name in names.items())


def check_single(truth: Truth, rows: Rows) -> None:
    """Raise TableError naming the first image that has not exactly one label."""
    for place, row in enumerate(rows):
        if len(row) != 1:
            found = f"{len(row)} labels: {', '.join(row)}" if row else "no label"
            raise TableError(f"{name_image(truth, place)}: found {found}; wanted one (several are --type multilabel)")


def check_known(truth: Truth, rows: Rows, labels: Mapping[str, int], wanted: str) -> None:
    """Raise TableError naming the first image with a label that is not among `labels`."""
    for place, row in enumerate(rows):
        for word in row:
            if word not in labels:
                raise TableError(f"{name_image(truth, place)}: found label {word!r}; wanted {wanted}")


def check_cells(truth: Truth, cells: Rows, holds: NDArray[np.bool_], wanted: str) -> None:
    """Raise TableError naming the first cell that does not hold; `holds`: (images, columns)."""
    wrong = np.argwhere(~holds)
    if len(wrong):
        row, column = map(int, wrong[0])
        found = f"{truth.columns[column]}: found {cells[column][row]!r}"
        raise TableError(f"{name_image(truth, row)}: {found}; wanted {wanted}")


def name_image(truth: Truth, row: int) -> str:
    """Return the start of a message about a row of the truth."""
    return f"{truth.source}: image {truth.frame[truth.id_column].iloc[row]}"
