"""Cells of the truth: one label, several labels, or a number; each fault names the file, the image and the cell."""

import ast
import math
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import OptionError, TableError

SEPARATORS = (" ", ",", ";", "|")
MISSING = frozenset(("nan", "none", "null", "na", "n/a", "<na>"))
WHOLE = re.compile(r"(0|[1-9]\d*)(\.0*)?")
NEGATIVE = re.compile(r"-\d+(\.0*)?")
TRUE_FALSE = {"true": "1", "false": "0"}
SHARE = 0.5  # of the words of a column that are whole numbers, above which the others are faults

Name = Callable[[int], str]
"""From a row to the start of a message, which names the file, the image and the column."""


def split_list(cell: str) -> tuple[str, ...] | None:
    """Return the items of a Python list such as "[0, 9]" or "['a', 'b']"; None if the cell is not one."""
    if not (cell.startswith(("[", "(")) and cell.endswith(("]", ")"))):
        return None
    try:
        items = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return tuple(str(item).strip() for item in items) if isinstance(items, list | tuple) else None


def split_cell(cell: str, separator: str | None) -> tuple[str, ...]:
    """Return the labels of a cell; None as `separator`: the whole cell is one label."""
    items = split_list(cell)
    if items is not None:
        return items
    if separator is None:
        return (cell,) if cell else ()
    return tuple(word.strip() for word in cell.split(separator) if word.strip())


def is_whole(word: str) -> bool:
    """Return whether a word is a whole number from 0, also as 3.0, but not 03."""
    return WHOLE.fullmatch(word) is not None


def shorten(word: str) -> str:
    """Return a whole number without the zeros of a decimal number: 3.0 becomes 3."""
    return word.partition(".")[0]


def find_separator(cells: Sequence[str], known: frozenset[str], where: str) -> str | None:
    """Return what separates the labels of the cells; None: each cell is one label.

    `known`: all labels, if they are known from elsewhere. Raises OptionError: names with a comma or a space may be one
    label or several.
    """
    texts = [cell for cell in dict.fromkeys(cells) if cell and split_list(cell) is None]
    if known:
        return _find_known(texts, lambda word: word in known or (is_whole(word) and shorten(word) in known))
    if _find_share(texts, None, is_whole) > SHARE or any(
        _find_share(texts, separator, is_whole) > SHARE for separator in SEPARATORS
    ):
        return _find_known(texts, is_whole)
    alone = frozenset(texts)
    for separator in reversed(SEPARATORS):
        several = [split_cell(text, separator) for text in texts if separator in text]
        words = {word for cell in several for word in cell}
        if several and (separator in ";|" or words <= alone):
            return separator
        if words & alone:
            example = next(text for text in texts if separator in text)
            raise OptionError(
                f"--separator: cannot be known: {where} has cells such as {example!r}, one label or several; give "
                f"--separator {separator!r} or --separator none"
            )
    return None


def read_labels_of_cells(cells: Sequence[str], separator: str | None, name: Name) -> tuple[list[tuple[str, ...]], bool]:
    """Return the labels of each cell, and whether all are whole numbers, then without zeros after the point.

    Raises TableError naming the cell: nan, or a label that is no whole number among whole numbers.
    """
    rows = [split_cell(cell, separator) for cell in cells]
    words = dict.fromkeys(word for row in rows for word in row)
    whole = sum(map(is_whole, words)) > SHARE * len(words) and not any(re.fullmatch(r"0\d+", word) for word in words)
    strange = [word for word in words if not is_whole(word)]
    mixed = whole and any(not NEGATIVE.fullmatch(word) and word.lower() not in MISSING for word in strange)
    for place, row in enumerate(rows):
        for word in row:
            if word.lower() in MISSING:
                raise TableError(f"{name(place)}: found {cells[place]!r}; wanted labels, or an empty cell for none")
            if whole and not mixed and not is_whole(word):
                raise TableError(f"{name(place)}: found {cells[place]!r}; wanted whole numbers from 0")
    if whole and not mixed:
        return [tuple(dict.fromkeys(map(shorten, row))) for row in rows], True
    return [tuple(dict.fromkeys(row)) for row in rows], False


def read_numbers(columns: Sequence[Sequence[str]], name: Callable[[int, int], str]) -> NDArray[np.float64]:
    """Return the numbers of a table, (rows, columns), from its columns; True and False count as 1 and 0.

    `name`: from a row and a column to the start of a message. Raises TableError naming the first other cell.
    """
    numbers = np.empty((len(columns[0]), len(columns)))
    for column, cells in enumerate(columns):
        for row, cell in enumerate(cells):
            numbers[row, column] = parse_number(cell)
            if math.isnan(numbers[row, column]):
                raise TableError(f"{name(row, column)}: found {cell!r}; wanted a number")
    return numbers


def parse_number(cell: str) -> float:
    """Return the finite number of a cell, or NaN."""
    text = TRUE_FALSE.get(cell.lower(), cell)
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def are_numbers(cells: Iterable[str]) -> bool:
    """Return whether every cell is a finite number."""
    return all(not math.isnan(parse_number(cell)) for cell in cells)


def _find_share(texts: Sequence[str], separator: str | None, holds: Callable[[str], bool]) -> float:
    words = [word for text in texts for word in split_cell(text, separator)]
    return sum(map(holds, words)) / max(1, len(words))


def _find_known(texts: Sequence[str], holds: Callable[[str], bool]) -> str | None:
    """Return the separator that gives the largest share of known labels; the whole cell wins a tie."""
    best: tuple[float, str | None] = (_find_share(texts, None, holds), None)
    for separator in SEPARATORS:
        share = _find_share(texts, separator, holds)
        if share > best[0]:
            best = (share, separator)
    return best[1]
