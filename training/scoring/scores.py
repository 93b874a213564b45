"""F2 of predictions over all labels and per group, with thresholds fitted to the same images or cross-fitted."""

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
    """Return sample-mean F2 at the best threshold of each group: `f2` over all labels, `f2_GROUP` over a group's.

    `scores`, `truth`: (images, labels of the network's group). The thresholds are fitted to these images. A group's
    figure skips images without a true label of the group: no label predicted for them can be right. A network of one
    group has only that group's figure.
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
    """Return the figures of score_network in one line."""
    named = {"f2": "F2", **{name: f"F2 of {name.removeprefix('f2_')}" for name in figures if name != "f2"}}
    return ", ".join(f"{named[name]} {value:.4f}" for name, value in figures.items())


def score_kind(scores: Scores, truth: NDArray[np.bool_], labels: Labels, kind: str) -> NDArray[np.float64]:
    """Return F2 of each image by cross-fitted rules; `kind`: 'all' labels, or only those of a group.

    `scores`, `truth`: (images, labels). For a group, images without a true label of the group are skipped.
    """
    if kind != ALL:
        columns = np.array(labels.columns(kind))
        kept = np.flatnonzero(truth[:, columns].any(axis=1))
        labels = narrow_labels(labels, kind)
        scores, truth = scores[np.ix_(kept, columns)], truth[np.ix_(kept, columns)]
    return score_samples(decide_crossed(scores, truth, labels), truth)


def narrow_labels(labels: Labels, group: str) -> Labels:
    """Return the labels of one group without the others."""
    columns = labels.columns(group)
    ids = tuple(labels.ids[column] for column in columns)
    names = tuple(labels.names[column] for column in columns)
    return Labels(ids, names, {group: tuple(range(len(columns)))})
