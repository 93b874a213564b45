"""Submissions of each form, read into the matrix that the metrics take."""

from pathlib import Path

import numpy as np
import pytest

from inference.manifest.labels import Labels
from inference.manifest.task import Form, Metric, Task
from inference.task.answers import list_answers
from inference.task.sample import Cell, Sample
from inference.task.submission import write_submission
from zoo.tables.submissions import read_matrix

LABELS = Labels((3, 5, 8), ("a", "b", "c"), {"labels": (0, 1, 2)})
SCORES = np.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]])
CELLS = (
    Cell("x_c", 0, 2),
    Cell("y_a", 1, 0),
    Cell("x_a", 0, 0),
    Cell("y_c", 1, 2),
    Cell("x_b", 0, 1),
    Cell("y_b", 1, 1),
)


def read_back(
    task: Task, header: tuple[str, ...], matrix: np.ndarray, path: Path, labels: Labels = LABELS
) -> np.ndarray:
    sample = Sample(header, ("x", "y"), CELLS if task.submission.layout == "long" else ())
    write_submission(path, sample, list_answers(matrix, labels, task), labels, task)
    return read_matrix(path, sample, labels, task)


def test_lists_are_selections_and_ranked_lists_are_ranks(tmp_path: Path) -> None:
    selected = SCORES > 0.25
    found = read_back(Task(), ("id", "attribute_ids"), selected, tmp_path / "s.csv")
    assert found.dtype == np.bool_ and np.array_equal(found, selected)
    ranked = Task(
        type="multiclass", submission=Form("list", "label_name", "attribute_ids", top_k=2), metric=Metric("map", k=2)
    )
    found = read_back(ranked, ("id", "attribute_ids"), SCORES, tmp_path / "s.csv")
    assert found.tolist() == [[-np.inf, 2, 1], [2, -np.inf, 1]]


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_probabilities_are_read_in_the_order_of_the_labels(layout: str, tmp_path: Path) -> None:
    task = Task(submission=Form(layout, "probability", "p"), metric=Metric("roc_auc"))  # type: ignore[arg-type]
    header = ("id", "p") if layout == "long" else ("c", "id", "a", "b")
    np.testing.assert_allclose(read_back(task, header, SCORES, tmp_path / "s.csv"), SCORES)


def test_numbers_are_in_units_of_the_range(tmp_path: Path) -> None:
    task = Task(type="regression", submission=Form("wide", "number"), metric=Metric("rmse"), value_range=(-5.0, 15.0))
    one = Labels((0,), ("y",), {"labels": (0,)})
    matrix = np.array([[0.25], [1.5]])
    np.testing.assert_allclose(read_back(task, ("id", "y"), matrix, tmp_path / "s.csv", one), matrix)
    assert (tmp_path / "s.csv").read_text() == "id,y\nx,0\ny,25\n"
