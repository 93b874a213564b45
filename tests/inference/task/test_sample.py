"""Sample submissions of each form."""

from pathlib import Path

import pytest

from inference.basics.errors import SubmissionError
from inference.manifest.labels import Labels
from inference.manifest.task import Form, Metric, Task
from inference.task.sample import Cell, Sample, read_sample
from tests.inference.task.tasks import BINARY, IMET, IMET_LABELS, LONG, ONE_NAME, WIDE, make_labels

ADVICE = (
    "as `task` of the manifest says; give the competition's own sample, or correct the task with "
    "`build_kernel.py set` or `init`"
)
WANTED = f"wanted id, attribute_ids, {ADVICE}"
ROW, SIDE_ROW = (f"{row}, with a label of labels.csv" for row in ("{id}_{label}", "{label}-{id}"))
SIDES = Task(submission=Form("long", "probability", "p", row="{label}-{id}"), metric=Metric("roc_auc"))


@pytest.mark.parametrize(
    ("task", "labels", "content", "wanted"),
    [
        (IMET, IMET_LABELS, "id,attribute_ids\nb,0 1 2\na,\n", Sample(("id", "attribute_ids"), ("b", "a"))),
        (ONE_NAME, make_labels("Maize"), "species,file\nMaize,b.png\n", Sample(("species", "file"), ("b.png",))),
        (WIDE, make_labels("a b", "c,d"), 'id,"c,d",a b\n1,0,0\n01,0,0\n', Sample(("id", "c,d", "a b"), ("1", "01"))),
        (
            LONG,
            make_labels("C1", "C11", "a_C1"),
            "row_id,fractured\n1.2_C11,0\nx_y_C1,0\n1.2_a_C1,0\n1.2_C1,0\n",
            Sample(
                ("row_id", "fractured"),
                ("1.2", "x_y"),
                (Cell("1.2_C11", 0, 1), Cell("x_y_C1", 1, 0), Cell("1.2_a_C1", 0, 2), Cell("1.2_C1", 0, 0)),
            ),
        ),
    ],
)
def test_a_sample_of_each_form_is_read(
    task: Task, labels: Labels, content: str, wanted: Sample, tmp_path: Path
) -> None:
    path = tmp_path / "sample.csv"
    path.write_text(content)
    found = read_sample(path, task, labels)
    assert found == wanted
    assert found.rows == (tuple(cell.row for cell in wanted.cells) or wanted.ids)


@pytest.mark.parametrize(
    ("task", "labels", "content", "message"),
    [
        (IMET, IMET_LABELS, "id,target\na,0\n", f"found the columns id, target; {WANTED}"),
        (IMET, IMET_LABELS, "id,attribute_ids,Usage\na,0,x\n", f"found the columns id, attribute_ids, Usage; {WANTED}"),
        (IMET, IMET_LABELS, "id\na\n", f"found the columns id; {WANTED}"),
        (IMET, IMET_LABELS, "", f"found the columns ; {WANTED}"),
        (BINARY, make_labels("sick"), "id,ill\na,0\n", f"found the columns id, ill; wanted id, sick, {ADVICE}"),
        (
            WIDE,
            make_labels(*"abcdefghij"),
            "id,a\n1,0\n",
            f"found the columns id, a; wanted id, a, b, c, d, e, f, g and 3 more, {ADVICE}",
        ),
        (LONG, make_labels("C1", "C2"), "row_id,fractured\n1.2_C3,0\n", f"found the row '1.2_C3'; wanted {ROW}"),
        (SIDES, make_labels("L", "R"), "id,p\n0-L,0\n", f"found the row '0-L'; wanted {SIDE_ROW}"),
    ],
)
def test_a_sample_of_another_form_is_refused(
    task: Task, labels: Labels, content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "sample.csv"
    path.write_text(content)
    with pytest.raises(SubmissionError) as error:
        read_sample(path, task, labels)
    assert str(error.value) == f"{path}: {message}"
