"""Answers as the page of the notebook shows them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.basics.errors import SubmissionError
from inference.manifest.labels import Labels
from inference.manifest.task import Form, Task
from inference.task.overview import describe_answer, measure_labels, read_answers

NAMES = ("red panda", "cat, wild", "dog")
LABELS = Labels((0, 1, 2), NAMES, {"labels": (0, 1, 2)})
ONE = Labels((0,), ("Pawpularity",), {"labels": (0,)})
SEVERAL = Task()
RANKED = Task(
    type="multiclass", id_column="Image", submission=Form(content="label_name", column="Id", separator="|", top_k=2)
)
WIDE = Task(type="multiclass", submission=Form("wide", "probability", sum_to_one=True))
LONG = Task(type="multilabel", id_column="row_id", submission=Form("long", "probability", "p"))
NUMBER = Task(type="regression", id_column="Id", submission=Form("wide", "number"), value_range=(1, 100))


def write_table(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("task", "labels", "rows", "wanted", "shares"),
    [
        (SEVERAL, LABELS, [("id", "attribute_ids"), ("a", "0 2"), ("b", "2")], {"a": [0, 2], "b": [2]}, [0.5, 0, 1]),
        (
            RANKED,
            LABELS,
            [("Image", "Id"), ("a.jpg", "dog|red panda"), ("b", "cat, wild")],
            {"a.jpg": [2, 0], "b": [1]},
            [0, 0.5, 0.5],
        ),
        (WIDE, LABELS, [("id", *NAMES), ("1", "0.5", "0.25", "0.25")], {"1": [0.5, 0.25, 0.25]}, [0.5, 0.25, 0.25]),
        (
            LONG,
            LABELS,
            [("row_id", "p"), ("x_dog", "0.5"), ("x_red panda", "1"), ("y_dog", "0"), ("x_cat, wild", "0.25")],
            {"x": [1, 0.25, 0.5], "y": [np.nan, np.nan, 0]},
            [1, 0.25, 0.25],
        ),
        (NUMBER, ONE, [("Id", "Pawpularity"), ("a", "99.5"), ("b", "0.5")], {"a": [99.5], "b": [0.5]}, [50]),
    ],
    ids=["labels", "ranked names", "wide", "long", "number"],
)
def test_answers_are_read_and_summarised(
    task: Task, labels: Labels, rows: Any, wanted: dict[str, Any], shares: list[float], tmp_path: Path
) -> None:
    answers = read_answers(write_table(tmp_path / "s.csv", *rows), labels, task)
    assert list(answers) == list(wanted)
    for name, answer in answers.items():
        np.testing.assert_array_equal(answer, wanted[name])
    np.testing.assert_allclose(measure_labels(list(answers.values()), labels, task), shares)


def test_other_columns_of_a_train_table_do_not_matter_but_its_own_must_be_there(tmp_path: Path) -> None:
    table = write_table(tmp_path / "train.csv", ("site", "attribute_ids", "id"), ("x", "1 2", "a"))
    assert read_answers(table, LABELS, SEVERAL) == {"a": [1, 2]}
    with pytest.raises(SubmissionError, match=r"train\.csv: no `Image` column; found site, attribute_ids, id$"):
        read_answers(table, LABELS, RANKED)
    write_table(table, ("id", "attribute_ids"), ("a", "7"))
    with pytest.raises(SubmissionError, match=r"train\.csv: a: found label id 7; wanted label ids of labels\.csv$"):
        read_answers(table, LABELS, SEVERAL)


@pytest.mark.parametrize(
    ("answer", "labels", "task", "scores", "text"),
    [
        ([0, 1, 2], LABELS, SEVERAL, {0: 0.2, 1: float("nan"), 2: 0.9}, ["dog 0.90", "red panda 0.20", "cat, wild"]),
        ([0, 2], LABELS, RANKED, {0: 0.2, 2: 0.9}, ["red panda 0.20", "dog 0.90"]),
        ([0, 2], LABELS, RANKED, {}, ["red panda", "dog"]),
        ([0.25, 0.5, 0.25], LABELS, WIDE, {}, ["cat, wild 0.50", "red panda 0.25", "dog 0.25"]),
        ([41.23456789], ONE, NUMBER, {}, ["41.2346"]),
    ],
)
def test_an_answer_is_described_with_the_most_certain_first(
    answer: list[Any], labels: Labels, task: Task, scores: dict[int, float], text: list[str]
) -> None:
    assert describe_answer(answer, labels, task, scores) == text


def test_training_labels_may_be_in_any_order_or_missing(tmp_path: Path) -> None:
    path = write_table(tmp_path / "train.csv", ("id", "attribute_ids"), ("a", "2 0"), ("b", ""), ("c", "1"))
    assert read_answers(path, LABELS, SEVERAL) == {"a": [2, 0], "b": [], "c": [1]}
