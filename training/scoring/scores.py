"""F2 of predictions, of all labels and of each group: by thresholds fitted to the same images, or cross-fitted."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.manifest.labels import Labels
from inference.manifest.records import ALL
from training.scoring.thresholds import (
    decide_crossed,
    declare_rules,
    rank_groups,
    score_decision,
    search_groups,
    search_single,
)
from zoo.f2 import find_threshold, score_samples


def score_network(scores: Scores, truth: NDArray[np.bool_], labels: Labels, group: str) -> dict[str, float]:
    """Sample-mean F2 at the best threshold of each group: `f2` of all labels, `f2_GROUP` of a group's alone.

    `scores`, `truth`: (images, labels of the network's group). The thresholds are fitted to the images that they are
    reported on. A group's figure leaves out the images without a label of the group: nothing that is taken for them can
    count as right. A network of one group has that group's figure only.
    """
    figures = {}
    for name in labels.groups if group == ALL else (group,):
        columns = np.searchsorted(labels.columns(group), labels.columns(name))
        true = truth[:, columns]
        rows = np.flatnonzero(true.any(axis=1))
        figures[f"f2_{name}"] = find_threshold(scores[rows][:, columns], true[rows])[1] if len(rows) else float("nan")
    if group != ALL:
        return figures
    evidence = rank_groups(scores, truth, labels)
    rules = search_groups(evidence, search_single(evidence), minima=(0,), maxima=())
    return {"f2": score_decision(declare_rules(rules), scores, truth, labels), **figures}


def describe_f2(figures: Mapping[str, float]) -> str:
    """The figures of score_network in a line."""
    named = {"f2": "F2", **{name: f"F2 of {name.removeprefix('f2_')}" for name in figures if name != "f2"}}
    return ", ".join(f"{named[name]} {value:.4f}" for name, value in figures.items())


def score_kind(scores: Scores, truth: NDArray[np.bool_], labels: Labels, kind: str) -> NDArray[np.float64]:
    """F2 of each image by cross-fitted rules for the labels of one kind: 'all', or a group's alone.

    `scores`, `truth`: (images, labels). Of a group, only images that have a label of it count.
    """
    if kind != ALL:
        columns = np.array(labels.columns(kind))
        kept = np.flatnonzero(truth[:, columns].any(axis=1))
        labels = narrow_labels(labels, kind)
        scores, truth = scores[np.ix_(kept, columns)], truth[np.ix_(kept, columns)]
    return score_samples(decide_crossed(scores, truth, labels), truth)


def narrow_labels(labels: Labels, group: str) -> Labels:
    """The labels of one group as if there were no others."""
    columns = labels.columns(group)
    ids = tuple(labels.ids[column] for column in columns)
    names = tuple(labels.names[column] for column in columns)
    return Labels(ids, names, {group: tuple(range(len(columns)))})
