import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from inference.basics.errors import TrainingError
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from tests.conftest import ROOT
from zoo.tables.folds import (
    BINS,
    choose_classes,
    name_absent_labels,
    name_small_labels,
    read_folds,
    split_classes,
    split_folds,
    split_task,
    write_folds,
)

SHARED = ROOT.parent / "shared" / "imet2019"
TARGETS = np.random.default_rng(0).random((90, 6)) < 0.3


def test_folds_equal_the_packages_and_spread_each_label_evenly() -> None:
    owners = split_folds(TARGETS, 3, seed=7)
    splits = MultilabelStratifiedKFold(3, shuffle=True, random_state=7).split(TARGETS, TARGETS)
    for fold, (_, held_out) in enumerate(splits):
        assert list(np.flatnonzero(owners == fold)) == list(held_out)
    counts = np.array([TARGETS[owners == fold].sum(axis=0) for fold in range(3)])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 2


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(TrainingError, match="`folds`: found 91; wanted at most the number of images, 90"):
        split_folds(TARGETS, 91, seed=0)


def test_a_written_table_is_read_back_in_any_order_of_ids(tmp_path: Path) -> None:
    ids = [f"{place:04x}" for place in range(90)]
    owners = split_folds(TARGETS, 3, seed=0)
    write_folds(ids, owners, tmp_path / "folds.csv")
    assert list(read_folds(tmp_path / "folds.csv", ids[::-1])) == list(owners[::-1])
    assert list(read_folds(tmp_path / "folds.csv", ids[5:9])) == list(owners[5:9])


def test_ids_of_digits_only_and_gzip_are_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "folds.csv.gz", "wt") as file:
        file.write("id,fold\n0012,1\n12,0\n")
    assert list(read_folds(tmp_path / "folds.csv.gz", ["0012", "12"])) == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,fold\na,0\n", "no fold for 2 of the 3 images of train.csv, such as b, c; it was made for another table"),
        ("id,part\na,0\n", "no column 'fold'; found id, part"),
        ("id,fold\na,0\nb,-1\nc,0\n", "image b: found fold -1; wanted a whole number from 0"),
        ("id,fold\na,0\nb,0.5\nc,0\n", "image a: found fold 0.0; wanted a whole number from 0"),
        ("", "not a table: "),
    ],
)
def test_an_invalid_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(text)
    with pytest.raises(TrainingError, match=re.escape(f"{path}: {message}")):
        read_folds(path, ["a", "b", "c"])


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such file; wanted a table with the columns id and fold"):
        read_folds(tmp_path / "folds.csv", ["a"])


def test_labels_without_images_in_a_fold_are_named() -> None:
    labels = Labels((0, 1), ("tag::common", "tag::rare"), {"tag": (0, 1)})
    targets = np.array([[True, True], [True, False], [True, False], [True, False]])
    assert name_absent_labels(targets, np.array([0, 0, 1, 1]), labels) == [
        "fold 0 trains on no image of 1 labels: tag::rare",
        "fold 1 holds out no image of 1 labels: tag::rare",
    ]


CLASSES = np.random.default_rng(1).integers(0, 4, 90)
GROUPS = [f"patient{place // 3}" for place in range(90)]
TYPES = ("multilabel", "multiclass", "binary", "regression")


def test_classes_are_split_as_scikit_learn_does() -> None:
    owners = split_classes(CLASSES, 3, seed=7)
    for fold, (_, held_out) in enumerate(StratifiedKFold(3, shuffle=True, random_state=7).split(CLASSES, CLASSES)):
        assert list(np.flatnonzero(owners == fold)) == list(held_out)
    grouped = split_classes(CLASSES, 3, 7, GROUPS)
    splits = StratifiedGroupKFold(3, shuffle=True, random_state=7).split(CLASSES, CLASSES, GROUPS)
    for fold, (_, held_out) in enumerate(splits):
        assert list(np.flatnonzero(grouped == fold)) == list(held_out)


def make_targets(kind: str) -> np.ndarray:
    random = np.random.default_rng(2)
    if kind == "multiclass":
        return np.eye(4, dtype=bool)[CLASSES]
    if kind == "binary":
        return random.random((90, 1)) < 0.4
    return random.random((90, 1)).astype(np.float32) if kind == "regression" else TARGETS


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("grouped", [False, True])
def test_each_type_is_spread_over_the_folds_and_groups_stay_together(kind: str, grouped: bool) -> None:
    targets = make_targets(kind)
    owners = split_task(targets, Task(type=kind), 3, 0, GROUPS if grouped else None)  # type: ignore[arg-type]
    sizes = np.bincount(owners, minlength=3)
    assert sizes.min() > 0 and sizes.max() - sizes.min() <= (6 if grouped else 2)
    means = np.array([targets[owners == fold].mean(axis=0) for fold in range(3)])
    assert np.ptp(means, axis=0).max() < (0.3 if grouped else 0.07)
    if grouped:
        assert all(len(set(owners[place : place + 3])) == 1 for place in range(0, 90, 3))


def test_a_multilabel_task_keeps_its_split() -> None:
    assert list(split_task(TARGETS, Task(), 3, 5)) == list(split_folds(TARGETS, 3, 5))


def test_a_regression_is_stratified_by_quantiles_and_soft_labels_by_the_largest_share() -> None:
    values = np.random.default_rng(3).random((100, 1)) ** 4
    bins = choose_classes(values, Task(type="regression"))
    assert list(np.bincount(bins)) == [10] * BINS
    assert list(bins[np.argsort(values[:, 0])]) == sorted(bins)
    assert len(set(choose_classes(np.array([[0.0]] * 7 + [[1.0]] * 3), Task(type="regression")))) == 2
    shares = np.array([[0.2, 0.8], [0.6, 0.4]])
    assert list(choose_classes(shares, Task(type="multiclass"))) == [1, 0]


@pytest.mark.parametrize("groups", [None, [f"g{place}" for place in range(12)]])
def test_classes_with_one_image_are_split(groups: list[str] | None) -> None:
    assert sorted(split_classes(np.arange(12), 4, 0, groups)) == sorted([0, 1, 2, 3] * 3)
    rare = np.array([0] * 11 + [1])
    assert sorted(np.bincount(split_classes(rare, 4, 0, groups))) == [3, 3, 3, 3]


def test_small_classes_are_dealt_to_different_folds() -> None:
    classes = np.repeat(np.arange(20), 3)
    owners = split_classes(classes, 4, 0)
    assert all(len(set(owners[classes == one])) == 3 for one in range(20))
    assert list(owners) != list(split_classes(classes, 4, 1))


def test_small_labels_are_named() -> None:
    assert name_small_labels(np.array([5, 1, 0, 2]), ["a", "b", "c", "d"], 3) == [
        "2 of 4 labels have fewer images than the 3 folds: b (1), d (2)"
    ]
    assert name_small_labels(np.array([5, 3]), ["a", "b"], 3) == []


@pytest.mark.parametrize(
    ("folds", "groups", "message"),
    [
        (1, None, "`folds`: found 1; wanted at least 2"),
        (91, None, "`folds`: found 91; wanted at most the number of images, 90"),
        (31, GROUPS, "`folds`: found 31; wanted at most the number of groups, 30"),
    ],
)
@pytest.mark.parametrize("kind", TYPES)
def test_too_many_folds_are_refused(folds: int, groups: list[str] | None, message: str, kind: str) -> None:
    with pytest.raises(TrainingError) as error:
        split_task(make_targets(kind), Task(type=kind), folds, 0, groups)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
def test_the_folds_of_a_real_competition_entry_are_accepted() -> None:
    with gzip.open(SHARED / "train.csv.gz", "rt") as file:
        ids = [line.split(",")[0] for line in file][1:]
    owners = read_folds(SHARED / "folds.csv.gz", ids)
    assert (len(owners), owners.min(), owners.max()) == (109_237, 0, 4)
