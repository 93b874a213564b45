"""Scores to labels: a threshold and a smallest and largest number of labels for each group."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.labels import Labels
from inference.manifest import Decision, GroupDecision

Scores = NDArray[np.floating[Any]]


def decide(scores: Scores, labels: Labels, decision: Decision) -> NDArray[np.bool_]:
    """The labels taken, (images, labels); every image has at least one: where no group gives any, its highest score.

    `scores`: (images, labels).
    """
    taken = np.zeros(scores.shape, np.bool_)
    for group, rule in decision.groups.items():
        columns = np.array(labels.columns(group))
        taken[:, columns] = decide_group(scores[:, columns], rule)
    bare = np.flatnonzero(~taken.any(axis=1))
    taken[bare, scores[bare].argmax(axis=1)] = True
    return taken


def decide_group(scores: Scores, rule: GroupDecision) -> NDArray[np.bool_]:
    """The labels of one group that are taken; equal scores rank in label order.

    `scores`: (images, labels of the group). A label is taken at or above the threshold while it ranks among the first
    `maximum`, and in any case among the first `minimum`.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None, :], axis=1)
    taken: NDArray[np.bool_] = ((scores >= rule.threshold) & (ranks < rule.maximum)) | (ranks < rule.minimum)
    return taken


def list_label_ids(taken: NDArray[np.bool_], labels: Labels) -> list[tuple[int, ...]]:
    """The ids of each image's labels, ascending; `taken`: (images, labels)."""
    return [tuple(sorted(labels.ids[column] for column in np.flatnonzero(row))) for row in taken]
