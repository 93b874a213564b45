"""Folds: the images that each network holds out. folds.csv is made once and reused by every recipe of a zoo."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.basics.files import replace_file
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from zoo.text import NAMED

FOLDS_NAME = "folds.csv"
BINS = 10  # quantiles of the values of a regression task, which are stratified like classes


def split_task(
    targets: NDArray[np.generic], task: Task, folds: int, seed: int, groups: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Return the fold of each image, (images,), split as the task's type needs.

    `targets`: (images, labels), see `Table`. Images with the same text in `groups`, one per image, stay in one
    fold. Multilabel: split_folds, or balanced group sizes with `groups`; else split_classes.
    Raises TrainingError: fewer images or groups than folds.
    """
    if task.type != "multilabel":
        return split_classes(choose_classes(targets, task), folds, seed, groups)
    if groups is None:
        return split_folds(targets > 0.5, folds, seed)  # type: ignore[operator]
    return split_groups(groups, folds, seed)


def split_folds(targets: NDArray[np.bool_], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each image, (images,); each label is spread evenly over the folds.

    `targets`: (images, labels). The same targets and seed give the same folds. Method: Sechidis, Tsoumakas and
    Vlahavas, On the Stratification of Multi-Label Data, 2011. Takes seconds for 12,000 images, 90 s for iMet's 109,237.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    check_number("images", len(targets), folds)
    owners = np.empty(len(targets), np.int64)
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(targets)), targets)):
        owners[held_out] = fold
    return owners


def choose_classes(targets: NDArray[np.generic], task: Task) -> NDArray[np.int64]:
    """Return the class of each image, (images,), by which it is stratified: of `regression`, the quantile of its value.

    `targets`: (images, labels), as in zoo/tables/train_table.py; soft labels count as the label with the largest share.
    """
    numbers = np.asarray(targets)
    if task.type == "multiclass":
        return np.array(numbers.argmax(axis=1), np.int64)
    if task.type == "binary":
        return np.array(numbers[:, 0] > 0.5, np.int64)
    edges = np.quantile(numbers[:, 0], np.linspace(0, 1, BINS + 1)[1:-1])
    return np.array(np.searchsorted(edges, numbers[:, 0], side="right"), np.int64)


def split_classes(
    classes: NDArray[np.int64], folds: int, seed: int, groups: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Return the fold of each image, (images,); each class is spread evenly over the folds, groups stay together.

    `classes`: (images,). Classes with fewer images than folds are allowed. Raises TrainingError: fewer images or groups
    than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    check_number("images", len(classes), folds)
    if groups is not None:
        check_number("groups", len(set(groups)), folds)
    if np.bincount(classes).max() < folds:  # scikit-learn refuses to stratify
        return deal_classes(classes, folds, seed) if groups is None else split_groups(groups, folds, seed)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(n_splits=folds, shuffle=True, random_state=seed)
    owners = np.empty(len(classes), np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # see name_small_labels
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(classes)), classes, groups)):
            owners[held_out] = fold
    return owners


def deal_classes(classes: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each image, dealt in turn after a shuffle within each class: for very small classes."""
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    order = shuffled[np.argsort(classes[shuffled], kind="stable")]
    owners = np.empty(len(classes), np.int64)
    owners[order] = np.arange(len(classes)) % folds
    return owners


def split_groups(groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each image, (images,); groups stay together, folds have about as many images."""
    from sklearn.model_selection import GroupKFold

    check_number("groups", len(set(groups)), folds)
    owners = np.empty(len(groups), np.int64)
    names, members = np.unique(np.array(groups, object).astype(str), return_inverse=True)
    places = np.random.default_rng(seed).permutation(len(names))[members]  # ties between groups go by the seed
    splitter = GroupKFold(n_splits=folds)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(groups)), groups=places)):
        owners[held_out] = fold
    return owners


def check_number(what: str, found: int, folds: int) -> None:
    """Raise TrainingError if there are fewer than two folds, or fewer `what` than folds."""
    if folds < 2:
        raise TrainingError(f"`folds`: found {folds}; wanted at least 2")
    if folds > found:
        raise TrainingError(f"`folds`: found {folds}; wanted at most the number of {what}, {found}")


def name_small_labels(counts: NDArray[np.int64], names: Sequence[str], folds: int) -> list[str]:
    """Return a line if labels have fewer images than folds, so that some fold holds out none of them.

    `counts`: (labels,), the number of images of each label; those without images are not named.
    """
    small = np.flatnonzero((counts > 0) & (counts < folds))
    if not len(small):
        return []
    shown = ", ".join(f"{names[label]} ({counts[label]})" for label in small[:NAMED])
    more = ", …" * (len(small) > NAMED)
    return [f"{len(small)} of {len(names)} labels have fewer images than the {folds} folds: {shown}{more}"]


def write_folds(ids: Sequence[str], owners: NDArray[np.int64], path: Path) -> None:
    """Write a table with the columns id and fold, atomically."""
    with replace_file(path) as temporary:
        pd.DataFrame({"id": ids, "fold": owners}).to_csv(temporary, index=False, lineterminator="\n")


def read_folds(path: Path, ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the fold of each image of `ids` from a table with the columns id and fold, .csv or .csv.gz.

    The table may have other images too. Raises TrainingError: no table, a missing image, a fold that is not 0 or above.
    """
    try:
        table = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
        owners = dict(zip(table["id"], table["fold"], strict=True))
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file; wanted a table with the columns id and fold") from None
    except KeyError as error:
        raise TrainingError(f"{path}: no column {error}; found {', '.join(map(str, table.columns))}") from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: not a table: {error}") from error
    absent = [image for image in ids if image not in owners]
    if absent:
        raise TrainingError(
            f"{path}: no fold for {len(absent)} of the {len(ids)} images of train.csv, such as "
            f"{', '.join(absent[:NAMED])}; it was made for another table: remove it, or give another file with --folds"
        )
    for image in ids:
        if not isinstance(owners[image], int) or owners[image] < 0:
            raise TrainingError(f"{path}: image {image}: found fold {owners[image]}; wanted a whole number from 0")
    return np.array([owners[image] for image in ids], np.int64)


def name_absent_labels(targets: NDArray[np.generic], owners: NDArray[np.int64], labels: Labels) -> list[str]:
    """Return a line for each fold that trains on or holds out no image of some labels.

    `targets`: (images, labels), see `Table`; numbers above 0 count, so of a value no label is absent.
    """
    lines, present = [], np.asarray(targets) > 0
    for fold in range(int(owners.max()) + 1):
        for part, rows in (("trains on", owners != fold), ("holds out", owners == fold)):
            absent = [labels.names[column] for column in np.flatnonzero(~present[rows].any(axis=0))]
            if absent:
                shown = ", ".join(absent[:NAMED]) + ", …" * (len(absent) > NAMED)
                lines.append(f"fold {fold} {part} no image of {len(absent)} labels: {shown}")
    return lines
