"""train.csv in the forms that `init` writes and that people have."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from inference.basics.errors import TableError
from inference.manifest.labels import Labels
from inference.manifest.task import Form, Metric, Task
from zoo.tables import train_table
from zoo.tables.train_table import read_table

LABELS = Labels((0, 9, 10), ("Sugar beet", "Maize", "Common wheat"), {"labels": (0, 1, 2)})
ONE = Labels((0,), ("Pawpularity",), {"labels": (0,)})
CLASSES = Task(type="multiclass", submission=Form("list", "label_name", "species", top_k=1), metric=Metric("accuracy"))
OWN = dataclasses.replace(CLASSES, id_column="image")
NUMBER = Task(type="regression", submission=Form("wide", "number"), metric=Metric("rmse"), value_range=(10.0, 110.0))
VOTES = Task(type="multiclass", submission=Form("wide", "probability", sum_to_one=True), metric=Metric("kl_divergence"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("0 9", [1, 1, 0]), ("0  9 ", [1, 1, 0]), ('"0,9"', [1, 1, 0]), ('"[0, 9]"', [1, 1, 0]), ('"(0, 9)"', [1, 1, 0]),
        ("0;9", [1, 1, 0]), ("0|9", [1, 1, 0]), ("9.0", [0, 1, 0]), ("0.0", [1, 0, 0]), ("9 9", [0, 1, 0]), ("09", [0, 1, 0]),
        ("", [0, 0, 0]), ("[]", [0, 0, 0]), ("Sugar beet", [1, 0, 0]), ("Maize", [0, 1, 0]), ("\"['Maize', '0']\"", [1, 1, 0]),
    ],
)  # fmt: skip
def test_cells_of_labels_are_read_where_they_are_unambiguous(cell: str, wanted: list[int], tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "train.csv", f"id,attribute_ids\na,{cell}\n"), LABELS, Task())
    assert table.ids == ("a",) and table.images is None
    assert table.targets.astype(int).tolist() == [wanted] and table.targets.dtype == np.bool_


def test_each_form_of_the_truth_is_read(tmp_path: Path) -> None:
    hard = read_table(
        write(tmp_path / "a.csv", "id,image,labels\na b,train/x y.png,9\n01,t/1.png,0\n"), LABELS, CLASSES
    )
    assert hard.ids == ("a b", "01") and hard.images == ("train/x y.png", "t/1.png")
    assert hard.order_targets(["01", "a b"]).astype(int).tolist() == [[1, 0, 0], [0, 1, 0]]
    soft = read_table(write(tmp_path / "b.csv", "id,targets\na,0.25 0.75 0\n"), LABELS, VOTES)
    assert soft.targets.tolist() == [[0.25, 0.75, 0]] and soft.targets.dtype == np.float64
    value = read_table(write(tmp_path / "c.csv", "id,value\na,60\nb,110\nc,-40\n"), ONE, NUMBER)
    assert value.targets.tolist() == [[0.5], [1.0], [-0.5]]
    own = read_table(write(tmp_path / "d.csv", "species,file,image\nMaize,a.png,7\n"), LABELS, OWN)
    assert own.ids == ("7",) and own.images is None, "the columns of the sample"
    named = Labels((0, 1, 2), ("2", "1", "0"), {"labels": (0, 1, 2)})
    assert read_table(write(tmp_path / "f.csv", "id,labels\na,2\n"), named, Task()).targets.tolist() == [[0, 0, 1]]
    assert len(read_table(write(tmp_path / "e.csv", "id,labels\n1,0\n2,0\n3,0\n"), LABELS, Task(), limit=2).ids) == 2


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        (Task(), "id,attribute_ids\na3,nan\n", "image a3: found attribute_ids 'nan'; wanted ids or names of labels; correct the cell, or leave it empty for no label"),
        (Task(), "id,attribute_ids\na3,0 x\n", "image a3: found attribute_ids '0 x'; wanted ids or names of labels; correct the cell, or leave it empty for no label"),
        (Task(), "id,attribute_ids\na3,0.5\n", "image a3: found attribute_ids '0.5'; wanted ids or names of labels; correct the cell, or leave it empty for no label"),
        (Task(), "id,attribute_ids\na3,-1\n", "image a3: found attribute_ids '-1'; label -1 is not in labels.csv"),
        (Task(), "id,labels\na3,0 7\n", "image a3: found labels '0 7'; label 7 is not in labels.csv"),
        (Task(), "id,labels\na,0\na,9\n", "found image a twice; wanted unique ids"),
        (Task(), "id,labels\n", "has no row; wanted one for each image"),
        (Task(), "id,other\na,0\n", "no `attribute_ids` column; found id, other"),
        (Task(), "name,attribute_ids\na,0\n", "no `id` column; found name, attribute_ids"),
        (CLASSES, "id,labels\na,0 9\n", "image a: found labels '0 9'; wanted one label, as `task.type` is multiclass"),
        (CLASSES, "id,labels\na,\n", "image a: found labels ''; wanted one label, as `task.type` is multiclass"),
        (VOTES, "id,targets\na,0.5 0.5\n", "image a: found targets '0.5 0.5'; 2 numbers; wanted 3, one per label of labels.csv"),
        (VOTES, "id,targets\na,0.5 0.5 1\n", "image a: found targets '0.5 0.5 1'; their sum is 2; wanted 1"),
        (VOTES, "id,targets\na,1.5 -0.5 0\n", "image a: found targets '1.5 -0.5 0'; wanted numbers from 0 to 1"),
        (VOTES, "id,targets\na,nan 0 1\n", "image a: found targets 'nan 0 1'; wanted a number; correct the cell or remove the row"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_read_is_named(task: Task, text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", text)
    with pytest.raises(TableError) as error:
        read_table(path, LABELS, task)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize("cell", ["", "nan", "inf", "twelve", "1,5"])
def test_a_value_that_is_no_number_is_named(cell: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", f'id,value\na,"{cell}"\n')
    with pytest.raises(TableError) as error:
        read_table(path, ONE, NUMBER)
    assert (
        str(error.value)
        == f"{path}: image a: found value {cell!r}; wanted a number; correct the cell or remove the row"
    )


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    for task, columns in ((Task(), "id and attribute_ids"), (NUMBER, "id and labels")):
        with pytest.raises(TableError) as error:
            read_table(tmp_path / "x.csv", LABELS, task)
        assert str(error.value) == f"{tmp_path}/x.csv: no such file; wanted a table with the columns {columns}"


def test_a_table_that_needs_more_memory_than_there_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_table, "measure_available", lambda: 5.0)
    path = write(tmp_path / "train.csv", "id,labels\na,0\nb,9\n")
    with pytest.raises(TableError) as error:
        read_table(path, LABELS, Task())
    wanted = (
        "2 images and 3 labels need 0.0 GB of memory; found 0.0 GB free; use fewer rows, or a machine with more memory"
    )
    assert str(error.value) == f"{path}: {wanted}"
