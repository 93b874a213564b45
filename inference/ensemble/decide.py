"""Scores to labels: by a threshold and numbers of labels for each group, or by the highest expected F2."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.ensemble.expected_f2 import decide_expected
from inference.manifest.labels import Labels
from inference.manifest.records import Calibration, Decision, GroupDecision

# How much of a chance the score makes: enough to rank labels of equal chance, too little to move an expected F2.
SHARE_OF_SCORE = 1e-6


def decide(scores: Scores, labels: Labels, decision: Decision) -> NDArray[np.bool_]:
    """The labels taken by the decision's rule, (images, labels); every image has at least one.

    `scores`: from 0 to 1, (images, labels).
    """
    if decision.rule == "expected_f2":
        return decide_expected(calibrate(scores, labels, decision.calibration), decision.maximum)
    return decide_groups(scores, labels, decision.groups)


def calibrate(scores: Scores, labels: Labels, calibration: Mapping[str, Calibration]) -> NDArray[np.float64]:
    """The chance of each label to be true, by its group's curve, (images, labels); `scores`: (images, labels).

    Where a curve is flat the higher score still gets the higher chance: a millionth of a chance is the score itself.
    """
    chances = SHARE_OF_SCORE * scores.astype(np.float64)
    for group, curve in calibration.items():
        columns = np.array(labels.columns(group))
        chances[:, columns] += (1 - SHARE_OF_SCORE) * np.interp(scores[:, columns], curve.scores, curve.chances)
    return chances


def decide_groups(scores: Scores, labels: Labels, rules: Mapping[str, GroupDecision]) -> NDArray[np.bool_]:
    """The labels taken by each group's threshold and numbers of labels, (images, labels).

    `scores`: (images, labels). Where no group gives an image any, it gets its highest score.
    """
    taken = np.zeros(scores.shape, np.bool_)
    for group, rule in rules.items():
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
