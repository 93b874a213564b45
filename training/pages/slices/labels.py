"""Slices by the frequency and the group of the labels, and by the true number of a regression."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.task import Task
from training.pages.slices.figures import LabelFigures, ValueFigures, divide, finish, name_steps
from zoo.metrics.scoring import find_scoring, harden_truth, select_answers

RARITY_BOUNDS = (0, 20, 100, 1000)
QUARTERS = (0, 25, 50, 75, 100)


def slice_frequencies(
    answers: NDArray[Any], truth: NDArray[Any], images: NDArray[np.int64], task: Task
) -> list[LabelFigures]:
    """Measure the blend by label frequency; `answers`, `truth`: (images, labels); `images` per label: (labels,)."""
    steps = np.digitize(images, RARITY_BOUNDS)
    return [
        measure_labels(name, np.flatnonzero(steps == step).tolist(), answers, truth, task)
        for step, name in enumerate(name_steps(RARITY_BOUNDS), 1)
    ]


def measure_labels(
    label: str, columns: list[int], answers: NDArray[Any], truth: NDArray[Any], task: Task
) -> LabelFigures:
    """Measure the blend on some labels; `answers`, `truth`: (images, labels) of all.

    A metric that is a mean over images counts those with one of the labels. Recall and precision need selected labels:
    probabilities of labels that do not exclude one another select none.
    """
    chosen, true = select_answers(answers, task)[:, columns], harden_truth(truth, task)[:, columns]
    shown: NDArray[np.bool_] = np.asarray(true.any(axis=1))
    number, figure = int(true.sum()), score_labels(columns, answers, truth, shown, task)
    if not (task.submission.holds_labels or task.type == "multiclass"):
        return LabelFigures(label, len(columns), int(shown.sum()), number, None, None, None, figure)
    taken, hits = int(chosen.sum()), int((chosen & true).sum())
    recall, precision = divide(hits, number), divide(hits, taken)
    return LabelFigures(label, len(columns), int(shown.sum()), number, taken, recall, precision, figure)


def score_labels(
    columns: list[int], answers: NDArray[Any], truth: NDArray[Any], shown: NDArray[np.bool_], task: Task
) -> float | None:
    """Return the metric on some labels; `shown`: the images that have one of them.

    Classes that exclude one another cannot be judged without the others: for these, it is the metric of the shown
    images if it is a mean over images, else None.
    """
    scoring = find_scoring(task)
    if not shown.any() or (task.type == "multiclass" and not scoring.is_mean):
        return None
    if task.type == "multiclass":
        return finish(scoring.score(answers[shown], truth[shown]))
    rows = shown if scoring.is_mean else np.ones_like(shown)
    return finish(scoring.score(answers[rows][:, columns], truth[rows][:, columns]))


def slice_values(answers: NDArray[Any], truth: NDArray[Any], task: Task) -> list[ValueFigures]:
    """Measure the blend on the quarters of the true numbers; `answers`, `truth`: (images, 1), range units."""
    low, high = task.value_range
    true, found = (low + (high - low) * part[:, 0].astype(np.float64) for part in (truth, answers))
    bounds = np.unique(np.percentile(true, QUARTERS))
    bounds = bounds if len(bounds) > 1 else np.repeat(bounds, 2)
    places = np.searchsorted(bounds[1:-1], true, side="right")
    rows = []
    for place, (least, most) in enumerate(pairwise(bounds.tolist())):
        kept = places == place
        gaps = found[kept] - true[kept]
        bias, error = (divide(float(part.sum()), int(kept.sum())) for part in (gaps, np.abs(gaps)))
        figure = finish(find_scoring(task).score(answers[kept], truth[kept])) if kept.any() else None
        rows.append(ValueFigures(f"{least:.4g} to {most:.4g}", int(kept.sum()), bias, error, figure))
    return rows
