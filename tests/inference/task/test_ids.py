from pathlib import Path

import pytest

from inference.basics.errors import SubmissionError
from inference.task.ids import read_ids


def test_ids_are_read_in_file_order_from_any_csv_dialect(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    path.write_bytes(b"\xef\xbb\xbfid , attribute_ids\r\nb ,0 1 \r\n\r\n a,\r\n")
    assert read_ids(path) == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found an empty file; wanted a header line with id"),
        ("id,attribute_ids\n", "found no rows; wanted one row per test image"),
        ("image,attribute_ids\na,0\n", "no `id` column; found image, attribute_ids"),
        ("id,attribute_ids\na,0\nb,0\na,1\n", "found id a twice; wanted unique ids"),
        ("id,attribute_ids\na,0\n ,0\n", "row 2: found an empty id; wanted an image id"),
        ("attribute_ids,id\n0\n", "line 2: found 1 columns; wanted 2"),
    ],
)
def test_a_broken_sample_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    path.write_text(content)
    with pytest.raises(SubmissionError) as error:
        read_ids(path)
    assert str(error.value) == f"{path}: {message}"


def test_a_missing_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError) as error:
        read_ids(tmp_path / "x.csv")
    assert str(error.value) == f"{tmp_path}/x.csv: no such file"


def test_ids_that_are_equal_as_numbers_are_different_images(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    path.write_text("image_id,label\n1,0\n01,0\n1.0,0\n")
    assert read_ids(path, "image_id") == ["1", "01", "1.0"]
