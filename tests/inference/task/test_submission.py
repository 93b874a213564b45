import csv
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inference.basics.errors import OutputError, SubmissionError
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.answers import list_answers
from inference.task.ids import read_ids
from inference.task.sample import Cell, Sample
from inference.task.submission import check_submission, check_writable, read_submission, write_submission
from tests.inference.task.tasks import (
    BINARY,
    IMET,
    IMET_LABELS,
    LONG,
    NAMES,
    NUMBER,
    ONE_NAME,
    RANKED,
    WIDE,
    make_labels,
)

HEADER = ("id", "attribute_ids")


def test_a_written_submission_has_kaggles_format(tmp_path: Path) -> None:
    sample = Sample(HEADER, ("b", "a"))
    write_submission(tmp_path / "s.csv", sample, [(0, 5), (1,)], IMET_LABELS, IMET)
    assert (tmp_path / "s.csv").read_bytes() == b"id,attribute_ids\nb,0 5\na,1\n"
    check_submission(tmp_path / "s.csv", sample, IMET_LABELS, IMET)


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
        check_submission(path, Sample(HEADER, ("a", "b")), IMET_LABELS, IMET)
    assert str(error.value) == f"{path}: {message}"


def test_a_failed_write_leaves_the_old_submission_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("old")

    def fail_half_way() -> object:
        yield (0,)
        raise OSError(28, os.strerror(28))

    with pytest.raises(OutputError) as error:
        write_submission(path, Sample(HEADER, ("a", "b")), fail_half_way(), IMET_LABELS, IMET)  # type: ignore[arg-type]
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
    write_submission(link, Sample(HEADER, ("b",)), [(0, 5)], IMET_LABELS, IMET)
    check_submission(link, Sample(HEADER, ("b",)), IMET_LABELS, IMET)
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
    for read in (read_ids, lambda path: check_submission(path, Sample(HEADER, ("b",)), IMET_LABELS, IMET)):
        with pytest.raises(SubmissionError) as error:
            read(tmp_path / "s.csv")
        assert str(error.value) == f"{tmp_path}/s.csv: is a device or pipe; wanted a regular file"


def test_checking_that_an_output_can_be_written_leaves_no_file(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "s.csv")
    assert list((tmp_path / "new").iterdir()) == []


MATRIX = [[0.2, 0.5, 0.3], [0.125, 0.25, 0.625]]
CROPS = make_labels("Sugar beet", 'Say "hi", 麦', "Maize")
COLUMNS = ("id", "Sugar beet", 'Say "hi", 麦', "Maize")
CASES = (Cell("1.2_C1", 0, 0), Cell("1.3_C2", 1, 1), Cell("1.2_C2", 0, 1), Cell("1.3_C1", 1, 0))


@pytest.mark.parametrize(
    ("task", "labels", "sample", "matrix", "written"),
    [
        (ONE_NAME, CROPS, Sample(("file", "species"), ("a.png", "b.png")), MATRIX,
         'file,species\na.png,"Say ""hi"", 麦"\nb.png,Maize\n'),
        (RANKED, make_labels("7", "8", "9", first=7), Sample(("hotel_id", "image"), ("a", "b")), MATRIX,
         "hotel_id,image\n8 9 7,a\n9 8 7,b\n"),
        (NAMES, make_labels("scab", "frog eye"), Sample(("image", "labels"), ("a", "b")), [[True, True], [False, True]],
         "image,labels\na,scab|frog eye\nb,frog eye\n"),
        (WIDE, CROPS, Sample(COLUMNS, ("a", "b")), MATRIX,
         'id,Sugar beet,"Say ""hi"", 麦",Maize\na,0.2,0.5,0.3\nb,0.125,0.25,0.625\n'),
        (WIDE, CROPS, Sample(("Maize", "id", 'Say "hi", 麦', "Sugar beet"), ("a",)), MATRIX[:1],
         'Maize,id,"Say ""hi"", 麦",Sugar beet\n0.3,a,0.5,0.2\n'),
        (BINARY, make_labels("has_cactus"), Sample(("id", "has_cactus"), ("1", "01")), [[0.75], [1 / 3]],
         "id,has_cactus\n1,0.75\n01,0.333333333\n"),
        (LONG, make_labels("C1", "C2"), Sample(("row_id", "fractured"), ("1.2", "1.3"), CASES),
         [[0.1, 0.2], [0.3, 0.4]], "row_id,fractured\n1.2_C1,0.1\n1.3_C2,0.4\n1.2_C2,0.2\n1.3_C1,0.3\n"),
        (NUMBER, make_labels("Pawpularity"), Sample(("Id", "Pawpularity"), ("a", "b")), [[0.5], [-0.25]],
         "Id,Pawpularity\na,51\nb,-24\n"),
    ],
)  # fmt: skip
def test_answers_are_written_in_each_form_and_read_back(
    task: Task, labels: Labels, sample: Sample, matrix: list[list[float]], written: str, tmp_path: Path
) -> None:
    path, answers = tmp_path / "s.csv", list_answers(np.array(matrix), labels, task)
    write_submission(path, sample, answers, labels, task)
    assert path.read_text(encoding="utf-8") == written
    rows, found = zip(*read_submission(path, sample, labels, task), strict=True)
    assert rows == sample.rows
    wanted = [[answers[cell.image][cell.column]] for cell in sample.cells] or answers
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


@pytest.mark.parametrize(
    ("task", "labels", "cell", "message"),
    [
        (ONE_NAME, CROPS, "Beet", "found label 'Beet'; wanted label names of labels.csv"),
        (ONE_NAME, CROPS, "", "found no label; wanted at least one"),
        (RANKED, make_labels(*"abcd"), "0 1 2 3", "found '0 1 2 3'; wanted at most 3 labels, each once"),
        (RANKED, make_labels(*"abcd"), "0 1 0", "found '0 1 0'; wanted at most 3 labels, each once"),
        (NAMES, make_labels("scab", "rust"), "rust|scab", "found 'rust|scab'; wanted ascending label ids, each once"),
        (NAMES, make_labels("scab", "rust"), "scab rust", "found label 'scab rust'; wanted label names of labels.csv"),
        (BINARY, make_labels("target"), "1.5", "found '1.5'; wanted a probability from 0 to 1"),
        (BINARY, make_labels("target"), "-0.1", "found '-0.1'; wanted a probability from 0 to 1"),
        (BINARY, make_labels("target"), "nan", "found 'nan'; wanted a probability from 0 to 1"),
        (BINARY, make_labels("target"), "", "found ''; wanted a probability from 0 to 1"),
        (NUMBER, make_labels("Pawpularity"), "inf", "found 'inf'; wanted a number"),
        (WIDE, make_labels("x", "y"), "0.5,0.4", "found probabilities with the sum 0.9; wanted 1"),
    ],
)  # fmt: skip
def test_an_invalid_answer_is_named(task: Task, labels: Labels, cell: str, message: str, tmp_path: Path) -> None:
    path, wide = tmp_path / "s.csv", task.submission.layout == "wide"
    header = (task.id_column, *(labels.names if wide else (task.submission.column,)))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, ["a", *(cell.split(",") if wide else [cell])]])
    with pytest.raises(SubmissionError) as error:
        check_submission(path, Sample(header, ("a",)), labels, task)
    assert str(error.value) == f"{path}: a: {message}"


def test_a_submission_with_other_columns_than_the_sample_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("attribute_ids,id\n0,a\n")
    with pytest.raises(SubmissionError) as error:
        check_submission(path, Sample(HEADER, ("a",)), IMET_LABELS, IMET)
    found = "found the columns attribute_ids, id; wanted those of the sample: id, attribute_ids"
    assert str(error.value) == f"{path}: {found}"
