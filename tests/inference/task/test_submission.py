import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inference.basics.errors import OutputError, SubmissionError
from inference.manifest.labels import Labels
from inference.task.ids import read_ids
from inference.task.submission import check_submission, check_writable, write_submission

LABELS = Labels((0, 1, 5), ("c::a", "c::b", "t::c"), {"c": (0, 1), "t": (2,)})


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


def test_a_written_submission_has_kaggles_format(tmp_path: Path) -> None:
    write_submission(tmp_path / "s.csv", ["b", "a"], [(0, 5), (1,)])
    assert (tmp_path / "s.csv").read_bytes() == b"id,attribute_ids\nb,0 5\na,1\n"
    check_submission(tmp_path / "s.csv", ["b", "a"], LABELS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("b,0\na,1\n", "found 2 rows, repeated or out of order; wanted the 2 ids of the sample in order"),
        ("a,0\n", "found 1 rows, without b; wanted the 2 ids of the sample in order"),
        ("a,0\nb,0\nc,0\n", "found 3 rows, with c; wanted the 2 ids of the sample in order"),
        ("a,0\nb,\n", "b: found no label; wanted at least one"),
        ("a,0\nb,0 9\n", "b: found label id 9; wanted label ids of labels.csv"),
        ("a,0\nb,5 0\n", "b: found '5 0'; wanted ascending label ids, each once"),
        ("a,0\nb,0 0\n", "b: found '0 0'; wanted ascending label ids, each once"),
        ("a,0\nb,0.5\n", "b: found '0.5'; wanted label ids separated by spaces"),
    ],
)
def test_a_submission_that_kaggle_would_refuse_is_refused(rows: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("id,attribute_ids\n" + rows)
    with pytest.raises(SubmissionError) as error:
        check_submission(path, ["a", "b"], LABELS)
    assert str(error.value) == f"{path}: {message}"


def test_a_failed_write_leaves_the_old_submission_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("old")

    def fail_half_way() -> object:
        yield (0,)
        raise OSError(28, os.strerror(28))

    with pytest.raises(OutputError) as error:
        write_submission(path, ["a", "b"], fail_half_way())  # type: ignore[arg-type]
    assert str(error.value) == f"{path}: cannot be written: No space left on device"
    assert [file.name for file in tmp_path.iterdir()] == ["s.csv"]
    assert path.read_text() == "old"


def test_an_output_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as error:
        check_writable(tmp_path / "file" / "s.csv")
    assert str(error.value) == f"{tmp_path}/file: cannot create the folder: File exists"
    with pytest.raises(OutputError) as error:
        check_writable(tmp_path)
    assert str(error.value) == f"{tmp_path}: is a folder; name the file to write, as in {tmp_path}/submission.csv"


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_a_device_or_a_pipe_is_no_output(kind: str, tmp_path: Path) -> None:
    path = Path("/dev/null") if kind == "device" else tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind != "device":
        path.symlink_to("/dev/null")
    with pytest.raises(OutputError) as error:
        check_writable(path)
    assert str(error.value) == f"{path}: is a device or pipe; name the file to write, as in submission.csv"
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("exists", [True, False])
def test_the_file_that_a_link_names_is_written_and_the_link_stays(exists: bool, tmp_path: Path) -> None:
    target, link = tmp_path / "results" / "s.csv", tmp_path / "link.csv"
    link.symlink_to("results/s.csv")
    if exists:
        target.parent.mkdir()
        target.write_text("old")
    check_writable(link)
    write_submission(link, ["b"], [(0, 5)])
    check_submission(link, ["b"], LABELS)
    assert link.is_symlink() and target.read_text() == "id,attribute_ids\nb,0 5\n"


def test_a_link_to_itself_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "s.csv").symlink_to("s.csv")
    with pytest.raises(OutputError) as error:
        check_writable(tmp_path / "s.csv")
    assert str(error.value) == f"{tmp_path}/s.csv: cannot be written: Too many levels of symbolic links"


def test_many_runs_can_check_the_same_output_at_once(tmp_path: Path) -> None:
    def check(_: int) -> None:
        for _ in range(30):
            check_writable(tmp_path / "s.csv")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(check, range(8)))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_beside_the_output_is_deleted(tmp_path: Path) -> None:
    (tmp_path / ".s.csv.0123abcd.vitrine-tmp").touch()
    check_writable(tmp_path / "s.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_no_sample_and_no_submission(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.csv")
    for read in (read_ids, lambda path: check_submission(path, ["b"], LABELS)):
        with pytest.raises(SubmissionError) as error:
            read(tmp_path / "s.csv")
        assert str(error.value) == f"{tmp_path}/s.csv: is a device or pipe; wanted a regular file"


def test_checking_that_an_output_can_be_written_leaves_no_file(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "s.csv")
    assert list((tmp_path / "new").iterdir()) == []
