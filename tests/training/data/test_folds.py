import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from inference.basics.errors import TrainingError
from inference.manifest.labels import Labels
from tests.conftest import ROOT
from training.data.folds import name_absent_labels, read_folds, split_folds, write_folds

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


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
def test_the_folds_of_a_real_competition_entry_are_accepted() -> None:
    with gzip.open(SHARED / "train.csv.gz", "rt") as file:
        ids = [line.split(",")[0] for line in file][1:]
    owners = read_folds(SHARED / "folds.csv.gz", ids)
    assert (len(owners), owners.min(), owners.max()) == (109_237, 0, 4)
