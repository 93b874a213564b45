import os
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.basics.errors import LabelsError, TableError
from inference.basics.tables import read_columns


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (os.mkfifo, "is a device or pipe; wanted a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device or pipe; wanted a regular file"),
        (Path.mkdir, "cannot be read: Is a directory"),
        (
            lambda path: path.write_bytes(b"id\ngr\xf6\xdfe\n"),
            "cannot be read: 'utf-8' codec can't decode byte 0xf6 in position 5: invalid start byte",
        ),
        (
            lambda path: path.write_text("id\n" + "x" * 200_000),
            "cannot be read: field larger than field limit (131072)",
        ),
    ],
    ids=["missing", "pipe", "device", "folder", "latin-1", "long"],
)
def test_what_is_no_table_is_refused_at_once_with_the_callers_error(
    make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "x.csv")
    for kind in (TableError, LabelsError):
        with pytest.raises(kind) as error:
            list(read_columns(tmp_path / "x.csv", ("id",), kind))
        assert type(error.value) is kind and str(error.value) == f"{tmp_path}/x.csv: {message}"


def test_columns_are_found_by_name_in_any_dialect(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'\xef\xbb\xbfa, id ,c\r\n1,"x, y",3\r\n\r\n4,z,6\r\n')
    assert list(read_columns(tmp_path / "x.csv", ("c", "id"))) == [("3", "x, y"), ("6", "z")]
