"""The cells of an answer: labels by id or name, or numbers."""

import math
from collections.abc import Sequence

import numpy as np

from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.answers import Answer

SUM_ERROR = 1e-6  # largest difference from 1 of the sum of an image's probabilities
SPACE = " "


def write_value(value: float) -> str:
    """Return a number as text, with nine digits."""
    return f"{value:.9g}"


def parse_label_ids(text: str) -> list[int]:
    """Parse label ids separated by spaces. Raises ValueError: one is not a whole number."""
    return [int(word) for word in text.split()]


class CellReader:
    """Reads and checks the cells of an answer."""

    def __init__(self, labels: Labels, task: Task, is_submission: bool = True) -> None:
        """`is_submission`: labels must be in the form that the kernel writes; else any number of them in any order."""
        self._form, self._is_submission = task.submission, is_submission
        self._known = frozenset(labels.ids)
        self._by_name = dict(zip(labels.names, labels.ids, strict=True))

    def read(self, cells: Sequence[str]) -> Answer:
        """Return the answer of one row. Raises ValueError saying what was found and wanted."""
        return self._read_labels(cells[0]) if self._form.holds_labels else self._read_values(cells)

    def _read_labels(self, cell: str) -> list[int]:
        given = self._find_names(cell) if self._form.content == "label_name" else self._find_ids(cell)
        if not self._is_submission:
            return given
        if not given:
            raise ValueError("found no label; wanted at least one")
        top = self._form.top_k
        if top is None and given != sorted(set(given)):
            raise ValueError(f"found {cell!r}; wanted ascending label ids, each once")
        if top is not None and (len(given) > top or len(set(given)) < len(given)):
            raise ValueError(f"found {cell!r}; wanted at most {top} label{'s' * (top > 1)}, each once")
        return given

    def _find_ids(self, cell: str) -> list[int]:
        separator = self._form.separator
        try:
            given = parse_label_ids(cell if separator == SPACE else cell.replace(separator, SPACE))
        except ValueError:
            between = "spaces" if separator == SPACE else repr(separator)
            raise ValueError(f"found {cell!r}; wanted label ids separated by {between}") from None
        for label in given:
            if label not in self._known:
                raise ValueError(f"found label id {label}; wanted label ids of labels.csv")
        return given

    def _find_names(self, cell: str) -> list[int]:
        words = [cell] if self._form.top_k == 1 else [word.strip() for word in cell.split(self._form.separator)]
        given = []
        for word in filter(None, words):
            if word not in self._by_name:
                raise ValueError(f"found label {word!r}; wanted label names of labels.csv")
            given.append(self._by_name[word])
        return given

    def _read_values(self, cells: Sequence[str]) -> Answer:
        values = []
        for cell in cells:
            try:
                value = float(cell)
            except ValueError:
                value = math.nan
            if self._form.content == "number" and not math.isfinite(value):
                raise ValueError(f"found {cell!r}; wanted a number")
            if self._form.content == "probability" and not 0 <= value <= 1:  # also refuses NaN
                raise ValueError(f"found {cell!r}; wanted a probability from 0 to 1")
            values.append(value)
        if self._form.sum_to_one and abs(sum(values) - 1) > SUM_ERROR:
            raise ValueError(f"found probabilities with the sum {sum(values):.6g}; wanted 1")
        return np.array(values)
