"""Comparison of two zoos by the task's metric on the images that both held out, with a bootstrap interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.ensemble.blend import Scores
from inference.manifest.labels import Labels
from inference.manifest.model import ALL
from inference.manifest.task import Task
from training.pages.choose import find_labelled
from training.scoring.bootstrap import bootstrap_difference, count_resamples
from training.scoring.scores import summarise_kind
from zoo.metrics.scoring import Scoring, find_scoring
from zoo.tables.out_of_fold import open_zoo, pool_models
from zoo.tables.train_table import read_table
from zoo.text import align_columns


@dataclass(frozen=True)
class Comparison:
    """The figures of two blends on the same images."""

    kind: str
    """Labels that count: 'all', or a group."""
    images: int
    first: float
    second: float
    low: float
    """Lower end of the 95 % interval of `gain`."""
    high: float
    gain: float
    """By how much the second is better than the first."""
    resamples: int
    """Of the bootstrap."""


def compare_zoos(
    train: Path,
    first: Path,
    second: Path,
    first_names: Sequence[str] = (),
    second_names: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Print the metric of manifests A and B on the images that both held out, and the difference with its interval.

    For all labels, and for each group that both cover, on the images with a label of the group. A and B have their own
    rules; rules fitted to one half of the images decide the other half. The interval covers the choice of images, not
    the seed of the training. Names select models, with equal weights; the name of a member selects all its folds.
    Default: the manifest's blend. Raises ManifestError, TableError or TrainingError.
    """
    from tqdm import tqdm

    zoos = [open_zoo(path) for path in (first, second)]
    labels = zoos[0].labels
    if labels != zoos[1].labels:
        raise TrainingError(
            f"{second}: found other labels than in {first}, or another order; wanted the same labels.csv"
        )
    task = zoos[0].manifest.task
    if (task.type, task.metric) != (zoos[1].manifest.task.type, zoos[1].manifest.task.metric):
        raise TrainingError(f"{second}: found another `task` than in {first}; wanted the same labels and metric")
    table = read_table(train, labels, task)
    pools = [
        pool_models(zoo, table, find_labelled(zoo, names) if names else None)
        for zoo, names in zip(zoos, (first_names, second_names), strict=True)
    ]
    rows, *places = np.intersect1d(pools[0].rows, pools[1].rows, assume_unique=True, return_indices=True)
    if len(rows) < 2:
        raise TrainingError(
            f"{first} and {second}: found {len(rows)} images that both held out; wanted thousands, and at least 2; "
            "compare zoos with the same folds"
        )
    scores = [pool.scores[place] for pool, place in zip(pools, places, strict=True)]
    kinds = [kind for kind in pools[0].kinds(labels) if kind in pools[1].kinds(labels)]
    found = [
        comparison
        for kind in tqdm(kinds, "fitting rules", mininterval=1)  # minutes on tens of thousands of images
        if (comparison := compare_scores(scores, table.targets[rows], labels, kind, task, seed)) is not None
    ]
    if not found:
        covered = [" and ".join(pool.groups) for pool in pools]
        raise TrainingError(
            f"{first} covers {covered[0]}, {second} covers {covered[1]}: found no group that both cover; wanted one "
            "with at least 2 images"
        )
    shown = [", ".join(names) or "blend" for names in (first_names, second_names)]
    print(f"A: {first} ({shown[0]})\nB: {second} ({shown[1]})\n")
    print(describe_comparison(found, find_scoring(task)))


def compare_scores(
    scores: Sequence[Scores], truth: NDArray[Any], labels: Labels, kind: str, task: Task, seed: int
) -> Comparison | None:
    """Compare two blends on the labels of one kind; None if fewer than 2 images have such a label.

    `scores`: (images, labels) of each; `truth`: (images, labels), bool or float32.
    """
    scoring = find_scoring(task)
    first, second = (summarise_kind(part, truth, labels, kind, task) for part in scores)
    if len(first) < 2:
        return None
    gain, low, high = bootstrap_difference(scoring, second, first, seed)
    return Comparison(
        kind, len(first), scoring.total(first), scoring.total(second), low, high, gain, count_resamples(scoring, first)
    )


def describe_comparison(found: Sequence[Comparison], scoring: Scoring) -> str:
    """Format all comparisons as a table, with the method, and the first one as a sentence."""
    rows = [("labels", "images", "A", "B", "B - A" if scoring.higher_is_better else "A - B", "95 % interval")]
    for one in found:
        figures = (f"{one.first:.4f}", f"{one.second:.4f}", f"{one.gain:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}")
        rows.append((one.kind, str(one.images), *figures))
    return "\n".join(
        [
            *align_columns(rows, left=1),
            "",
            f"Metric: {scoring.title}; {'higher' if scoring.higher_is_better else 'lower'} is better.",
            "Each half of the images is decided by rules fitted to the other half, separately for A and B.",
            f"The interval is from a paired bootstrap over images: percentiles of {found[0].resamples} resamples.",
            "",
            describe_gain(found[0], scoring),
        ]
    )


def describe_gain(one: Comparison, scoring: Scoring) -> str:
    """Format a comparison as a sentence."""
    scope = "" if one.kind == ALL else f"For {one.kind}, "
    sign = 1 if one.gain >= 0 else -1
    low, high = sorted((sign * one.low, sign * one.high))
    above = (sign > 0) == scoring.higher_is_better
    side = f"{abs(one.gain):.4f} {'above' if above else 'below'} A (95 % interval"
    if one.gain == 0:
        side = "equal to A (95 % interval of the difference"
    doubt = "" if low > 0 else "; 0 is in the interval, so the difference is not significant"
    return f"{scope}B is {side} {low:.4f} to {high:.4f}; {one.images} images){doubt}."
