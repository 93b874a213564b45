"""CSV files from Kaggle and other tools; spaces around cells, CRLF and a byte-order mark are accepted."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from inference.basics.errors import InputError, TableError
from inference.basics.files import open_regular

if TYPE_CHECKING:
    import _csv


def read_columns(
    path: Path, columns: tuple[str, ...], error: type[TableError] = TableError
) -> Iterator[tuple[str, ...]]:
    """Yield the named columns of each row that is not blank, without surrounding spaces.

    Raises `error`: the file is missing, unreadable, a device or a pipe, has no header or column of that name, or a row
    is too short.
    """
    with _open_rows(path, error) as rows:
        header = [name.strip() for name in next(rows, [])]
        if not any(header):
            raise error(f"{path}: found an empty file; wanted a header line with {', '.join(columns)}")
        for column in columns:
            if column not in header:
                raise error(f"{path}: no `{column}` column; found {', '.join(header)}")
        places = [header.index(column) for column in columns]
        for line in rows:
            if not any(cell.strip() for cell in line):
                continue
            if len(line) <= max(places):
                raise error(f"{path}: line {rows.line_num}: found {len(line)} columns; wanted {len(header)}")
            yield tuple(line[place].strip() for place in places)


def read_header(path: Path, error: type[TableError] = TableError) -> list[str]:
    """Return the names of the columns, without surrounding spaces; none for an empty file.

    Raises `error`: the file is missing, unreadable, a device or a pipe.
    """
    with _open_rows(path, error) as rows:
        return [name.strip() for name in next(rows, [])]


@contextmanager
def _open_rows(path: Path, error: type[TableError]) -> "Iterator[_csv.Reader]":
    try:
        with open_regular(path) as file:
            yield csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    except InputError as fault:
        raise error(str(fault)) from fault
    except (UnicodeDecodeError, csv.Error) as fault:
        raise error(f"{path}: cannot be read: {fault}") from fault
