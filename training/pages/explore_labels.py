"""The figures of the labels or numbers of train.csv on the page of `explore`."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.task import Task
from training.pages.explore_figures import LabelCount
from zoo.metrics.scoring import harden_truth
from zoo.tables.train_table import Table

RARITY_BOUNDS = (20, 100, 1000)
HEAT_MAP_LABELS = 30
SHOWN_SHARES = 3
# What the page shows of a table: sets of labels, one class per image, shares of labels, or a number.
TruthKind = Literal["sets", "classes", "shares", "numbers"]


def find_kind(table: Table, task: Task) -> TruthKind:
    """Return what train.csv holds."""
    if task.type == "regression":
        return "numbers"
    if table.targets.dtype != np.bool_:
        return "shares"
    return "sets" if task.type == "multilabel" else "classes"


def count_labels(labels: Labels, table: Table, task: Task) -> list[LabelCount]:
    """Count the images of each label, in the order of labels.csv; of soft labels, those where it is true or highest."""
    owners = {column: group for group, columns in labels.groups.items() for column in columns}
    images = harden_truth(table.targets, task).sum(axis=0)
    shares = table.targets.mean(axis=0, dtype=np.float64)
    return [
        LabelCount(
            name.removeprefix(f"{owners[column]}::"), owners[column], name, int(images[column]), float(shares[column])
        )
        for column, name in enumerate(labels.names)
    ]


def count_rarity(images: Sequence[int]) -> list[int]:
    """Count the labels in each range of RARITY_BOUNDS, rarest first; `images`: images per label."""
    ranges = np.searchsorted(RARITY_BOUNDS, images, side="right")
    return [int(labels) for labels in np.bincount(ranges, minlength=len(RARITY_BOUNDS) + 1)]


def count_lengths(labels: Labels, table: Table) -> dict[str, NDArray[np.int64]]:
    """Count the labels of each image, (images,), of all groups if there are several and of each group."""
    lengths = {group: table.targets[:, columns].sum(axis=1) for group, columns in labels.groups.items()}
    return {"all": table.targets.sum(axis=1), **lengths} if len(lengths) > 1 else lengths


def describe_lengths(numbers: NDArray[np.int64]) -> dict[str, float]:
    """Summarise the labels per image, and count the images without a label."""
    return {
        "mean": float(numbers.mean()),
        "median": float(np.median(numbers)),
        "least": int(numbers.min()),
        "most": int(numbers.max()),
        "without": int((numbers == 0).sum()),
    }


def read_values(table: Table, task: Task) -> NDArray[np.float64]:
    """Return the numbers of a regression in the competition's units, (images,)."""
    low, high = task.value_range
    values: NDArray[np.float64] = low + (high - low) * table.targets[:, 0].astype(np.float64)
    return values


def describe_values(values: NDArray[np.float64]) -> dict[str, float]:
    """Summarise the numbers of a regression."""
    return {
        "mean": float(values.mean()),
        "standard deviation": float(values.std()),
        "median": float(np.median(values)),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
    }


def measure_heat_map(table: Table, counts: Sequence[LabelCount]) -> list[tuple[LabelCount, list[float | None]]]:
    """For each of the most frequent labels, compute the share of its images that have each other one; None for itself.

    Rows and columns start with the most frequent label; labels without an image are left out.
    """
    order = sorted(range(len(counts)), key=lambda column: -counts[column].images)[:HEAT_MAP_LABELS]
    order = [column for column in order if counts[column].images]
    chosen = table.targets[:, order].astype(np.float32)  # sums of ones: exact up to 16 million images
    together = chosen.T @ chosen  # (labels, labels)
    shares = together / together.diagonal()[:, None]
    return [
        (counts[column], [None if other == row else float(shares[row, other]) for other in range(len(order))])
        for row, column in enumerate(order)
    ]


def describe_truth(truth: NDArray[Any], task: Task, counts: Sequence[LabelCount]) -> tuple[list[LabelCount], str]:
    """Return the labels of an image, and what else to write: its shares or its number; `truth`: (labels,)."""
    if task.type == "regression":
        low, high = task.value_range
        return [], f"{low + (high - low) * float(truth[0]):.4g}"
    if truth.dtype == np.bool_:
        return [counts[column] for column in np.flatnonzero(truth).tolist()], ""
    order = [column for column in np.argsort(-truth, kind="stable")[:SHOWN_SHARES].tolist() if truth[column] > 0]
    return [], ", ".join(f"{counts[column].name} {truth[column]:.2f}" for column in order)
