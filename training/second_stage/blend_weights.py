"""Weights fitted for the task's metric: of the members in the blend, and of the parts in the mix."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.task import Metric, Task
from training.second_stage.objectives import Candidates, Objective, Weights, gather_candidates, make_objective
from zoo.metrics.f_beta import score_counts
from zoo.metrics.scoring import harden_truth
from zoo.metrics.selection import Truth

STEPS = (0.2, 0.1, 0.05)
# In units of the metric. A smaller gain is noise, and equal weights are safer.
SMALLEST_GAIN = 1e-5
Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


def fit_weights(
    scores: Mapping[str, NDArray[np.floating[Any]]],
    covers: Mapping[str, Sequence[str]],
    truth: Truth,
    labels: Labels,
    task: Task,
) -> dict[str, dict[str, float]]:
    """Fit the weights of each group's parts, adding up to 1, for the best metric with a plain rule.

    `scores`: by part, (images, labels), NaN for labels that it does not cover; `covers`: by group, the parts that cover
    it; `truth`: (images, labels). F-beta of samples or of all pairs is that of all groups at one threshold per group;
    other metrics are those of the group's own labels (objectives.py). Method: coordinate search from equal weights,
    which changes one weight by a step and keeps the ratios of the others. Judge the weights on other images.
    """
    names = {group: tuple(covers[group]) for group in labels.groups}
    if task.selects_labels and task.metric.average != "macro":
        true = harden_truth(truth, task)
        parts = {
            group: gather_candidates(stack_parts(scores, names[group], columns), true[:, list(columns)])
            for group, columns in labels.groups.items()
        }
        weights = search_groups(parts, true.sum(axis=1, keepdims=True), task.metric)
    else:
        weights = {}
        for group, columns in labels.groups.items():
            weights[group] = weigh_equally(len(names[group]))
            if len(names[group]) > 1:
                stacked = stack_parts(scores, names[group], columns)
                weights[group] = search(make_objective(task, stacked, truth[:, list(columns)]), weights[group])
    return {
        group: {name: round(float(weight), 4) for name, weight in zip(names[group], given, strict=True)}
        for group, given in weights.items()
    }


def stack_parts(
    scores: Mapping[str, NDArray[np.floating[Any]]], names: Sequence[str], columns: Sequence[int]
) -> NDArray[np.float32]:
    """Return the scores of a group's labels, (parts, images, labels of the group)."""
    places = np.array(columns)
    return np.stack([scores[name][:, places] for name in names]).astype(np.float32)


def weigh_equally(parts: int) -> Weights:
    """Return equal weights, (parts,)."""
    return np.full(parts, 1 / parts)


def search_groups(groups: Mapping[str, Candidates], true: NDArray[np.int64], metric: Metric) -> dict[str, Weights]:
    """Search the weights of one group after another; `true`: number of true labels of each image, (images, 1)."""
    weights = {group: weigh_equally(len(parts.scores)) for group, parts in groups.items()}
    counts = {group: parts.count(weights[group]) for group, parts in groups.items()}
    best = dict.fromkeys(groups, int(score_thresholds(*add_counts(counts.values()), true, metric).argmax()))
    for _ in range(2):  # a group's best weights depend a little on the labels predicted in the other groups
        for group, parts in groups.items():
            elsewhere = [
                (predicted[:, [best[name]]], hits[:, [best[name]]])
                for name, (predicted, hits) in counts.items()
                if name != group
            ]
            rest = add_counts([*elsewhere, (np.zeros_like(true), np.zeros_like(true))])

            def measure(tried: Weights, parts: Candidates = parts, rest: Counts = rest) -> float:
                return float(score_thresholds(*add_counts([parts.count(tried), rest]), true, metric).max())

            weights[group] = search(measure, weights[group])
            counts[group] = parts.count(weights[group])
            best[group] = int(score_thresholds(*add_counts([counts[group], rest]), true, metric).argmax())
    return weights


def search(measure: Objective, start: Weights) -> Weights:
    """Search the weights with the highest objective."""
    if len(start) == 1:
        return start
    weights, best = start, measure(start)
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for place in range(len(weights)):
                for change in (step, -step):
                    tried = change_weight(weights, place, change)
                    if tried is None:
                        continue
                    score = measure(tried)
                    if score > best + SMALLEST_GAIN:
                        weights, best, improved = tried, score, True
    return weights


def change_weight(weights: Weights, place: int, change: float) -> Weights | None:
    """Change one weight and scale the others so that all add up to 1; None if that is not possible."""
    wanted = min(max(weights[place] + change, 0.0), 1.0)
    rest = 1 - weights[place]
    if wanted == weights[place] or rest == 0:
        return None
    changed: Weights = weights * ((1 - wanted) / rest)
    changed[place] = wanted
    return changed


def add_counts(counts: Iterable[Counts]) -> Counts:
    """Add the predicted labels, and the true ones among them, of several groups."""
    predicted, hits = (sum(part) for part in zip(*counts, strict=True))
    return predicted, hits


def score_thresholds(
    predicted: NDArray[np.int64], hits: NDArray[np.int64], true: NDArray[np.int64], metric: Metric
) -> NDArray[np.float64]:
    """Return F-beta at each of THRESHOLDS, (thresholds,), over images or over all pairs; counts: (images, ...)."""
    if metric.average == "micro":
        return score_counts(hits.sum(axis=0), predicted.sum(axis=0), true.sum(), metric.beta)
    means: NDArray[np.float64] = score_counts(hits, predicted, true, metric.beta).mean(axis=0)
    return means
