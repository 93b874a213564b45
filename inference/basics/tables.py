"""CSV files from Kaggle and other tools; spaces around cells, CRLF and a byte-order mark are accepted."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from inference.basics.errors import InputError, TableError
from inference.basics.files import open_regular


def read_columns(
    path: Path, columns: tuple[str, ...], error: type[TableError] = TableError
) -> Iterator[tuple[str, ...]]:
    """Yield the named columns of each row that is not blank, without surrounding spaces.

    Raises `error`: the file is missing, unreadable, a device or a pipe, has no header or column of that name, or a row
    is too short.
    """
    try:
        with open_regular(path) as file:
            rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
            header = [name.strip() for name in next(rows, [])]
            if not any(header):
                raise error(f"{path}: found an empty file; wanted a header line with {', '.join(columns)}")
            for column in columns:
                if column not in header:
                    raise error(f"{path}: no `{column}` column; found {', '.join(header)}")
            places = [header.index(column) for column in columns]
            for row in rows:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) <= max(places):
                    raise error(f"{path}: line {rows.line_num}: found {len(row)} columns; wanted {len(header)}")
                yield tuple(row[place].strip() for place in places)
    except InputError as fault:
        raise error(str(fault)) from fault
    except (UnicodeDecodeError, csv.Error) as fault:
        raise error(f"{path}: cannot be read: {fault}") from fault


def read_header(path: Path, error: type[TableError] = TableError) -> list[str]:
    """Return the names of the columns, without surrounding spaces; none for an empty file.

    Raises `error`: the file is missing, unreadable, a device or a pipe.
    """
    try:
        with open_regular(path) as file:
            rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
            return [name.strip() for name in next(rows, [])]
    except InputError as fault:
        raise error(str(fault)) from fault
    except (UnicodeDecodeError, csv.Error) as fault:
        raise error(f"{path}: cannot be read: {fault}") from fault
