"""Folds: the images that each network holds out. folds.csv is made once and reused by every recipe of a zoo."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.basics.files import replace_file
from inference.manifest.labels import Labels
from zoo.text import NAMED

FOLDS_NAME = "folds.csv"


def split_folds(targets: NDArray[np.bool_], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each image, (images,); each label is spread evenly over the folds.

    `targets`: (images, labels). The same targets and seed give the same folds. Method: Sechidis, Tsoumakas and
    Vlahavas, On the Stratification of Multi-Label Data, 2011. Takes seconds for 12,000 images, 90 s for iMet's 109,237.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    if folds > len(targets):
        raise TrainingError(f"`folds`: found {folds}; wanted at most the number of images, {len(targets)}")
    owners = np.empty(len(targets), np.int64)
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(targets)), targets)):
        owners[held_out] = fold
    return owners


def write_folds(ids: Sequence[str], owners: NDArray[np.int64], path: Path) -> None:
    """Write a table with the columns id and fold, atomically."""
    with replace_file(path) as temporary:
        pd.DataFrame({"id": ids, "fold": owners}).to_csv(temporary, index=False, lineterminator="\n")


def read_folds(path: Path, ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the fold of each image of `ids` from a table with the columns id and fold, .csv or .csv.gz.

    The table may have other images too. Raises TrainingError: no table, a missing image, a fold that is not 0 or above.
    """
    try:
        table = pd.read_csv(path, dtype={"id": str})
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


def name_absent_labels(targets: NDArray[np.bool_], owners: NDArray[np.int64], labels: Labels) -> list[str]:
    """Return a line for each fold that trains on or holds out no image of some labels; `targets`: (images, labels)."""
    lines = []
    for fold in range(int(owners.max()) + 1):
        for part, rows in (("trains on", owners != fold), ("holds out", owners == fold)):
            absent = [labels.names[column] for column in np.flatnonzero(~targets[rows].any(axis=0))]
            if absent:
                shown = ", ".join(absent[:NAMED]) + ", …" * (len(absent) > NAMED)
                lines.append(f"fold {fold} {part} no image of {len(absent)} labels: {shown}")
    return lines
