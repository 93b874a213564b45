"""The metric over all labels and per group, with rules fitted to the same images or cross-fitted."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.ensemble.decide import decide
from inference.manifest.labels import Labels
from inference.manifest.model import ALL
from inference.manifest.task import Task
from training.scoring.rules import decide_crossed, fit_plainest, fit_thresholds_apart
from zoo.metrics.f_beta import find_threshold
from zoo.metrics.scoring import Summary, find_scoring, harden_truth
from zoo.metrics.selection import Truth


def score_network(scores: Scores, truth: Truth, labels: Labels, group: str, task: Task) -> dict[str, float]:
    """Return the metric of a network: `KEY` over all labels, as in `f2`, and `KEY_GROUP` over those of a group.

    `scores`, `truth`: (images, labels of the network's `group`). Labels above a threshold are decided by the best
    threshold of each group on these images, and each group has a figure; other answers are those of the plainest rule,
    without any fit. A network of one group among several has only that group's figure.
    """
    key = find_scoring(task).key
    if len(labels.groups) == 1:
        return {key: score_plainly(scores, truth, labels, task)}
    if not task.selects_labels or group != ALL:
        named = key if group == ALL else f"{key}_{group}"
        return {named: score_group(scores, truth, labels if group == ALL else narrow_labels(labels, group), task)}
    figures = {}
    for name in labels.groups:
        columns = np.array(labels.columns(name))
        figures[f"{key}_{name}"] = score_group(scores[:, columns], truth[:, columns], narrow_labels(labels, name), task)
    return {key: score_plainly(scores, truth, labels, task), **figures}


def score_group(scores: Scores, truth: Truth, labels: Labels, task: Task) -> float:
    """Return the metric over the labels of a group; `labels`: those of the group, `scores`, `truth`: (images, labels).

    F-beta of samples is that of the labels above the best threshold, over the images with a true label of the group:
    no label predicted for others can be right. NaN without any.
    """
    rows = find_rows(truth, task)
    if not len(rows):
        return float("nan")
    if task.selects_labels and task.metric.average == "samples":
        return find_threshold(scores[rows], harden_truth(truth[rows], task), task.metric.beta)[1]
    return score_plainly(scores[rows], truth[rows], labels, task)


def score_plainly(scores: Scores, truth: Truth, labels: Labels, task: Task) -> float:
    """Return the metric with a threshold per group or the plainest other rule, fitted to these images."""
    fit = fit_thresholds_apart if task.selects_labels else fit_plainest
    return find_scoring(task).score(decide(scores, labels, fit(task, scores, truth, labels)), truth)


def describe_figures(figures: Mapping[str, float], task: Task) -> str:
    """Return the figures of score_network in one line."""
    scoring = find_scoring(task)
    return ", ".join(
        f"{scoring.title}{name.removeprefix(scoring.key).replace('_', ' of ', 1)} {value:.4f}"
        for name, value in figures.items()
    )


def summarise_kind(scores: Scores, truth: Truth, labels: Labels, kind: str, task: Task) -> Summary:
    """Return the metric's summary of the images by cross-fitted rules; `kind`: 'all' labels, or those of a group.

    `scores`, `truth`: (images, labels). For F-beta of samples of a group, images without a true label of the group are
    skipped (`find_rows` of the group's truth).
    """
    if kind != ALL:
        columns = np.array(labels.columns(kind))
        labels = narrow_labels(labels, kind)
        kept = find_rows(truth[:, columns], task)
        scores, truth = scores[np.ix_(kept, columns)], truth[np.ix_(kept, columns)]
    return find_scoring(task).summarise(decide_crossed(scores, truth, labels, task), truth)


def find_rows(truth: Truth, task: Task) -> NDArray[np.int64]:
    """Return the rows of the images that count for a group; `truth`: (images, labels of the group)."""
    if task.selects_labels and task.metric.average == "samples":
        return np.flatnonzero(harden_truth(truth, task).any(axis=1))
    return np.arange(len(truth))


def narrow_labels(labels: Labels, group: str) -> Labels:
    """Return the labels of one group without the others."""
    columns = labels.columns(group)
    ids = tuple(labels.ids[column] for column in columns)
    names = tuple(labels.names[column] for column in columns)
    return Labels(ids, names, {group: tuple(range(len(columns)))})
