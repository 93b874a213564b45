"""Selection of labels from scores: by a threshold and label counts per group, or by the highest expected F2."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.ensemble.expected_f2 import decide_expected
from inference.manifest.labels import Labels
from inference.manifest.records import Calibration, Decision, GroupDecision

# Share of the score in a probability: ranks labels of equal probability, and is too small to change an expected F2.
SHARE_OF_SCORE = 1e-6


def decide(scores: Scores, labels: Labels, decision: Decision) -> NDArray[np.bool_]:
    """Select labels by the decision's rule, (images, labels), at least one per image.

    `scores`: from 0 to 1, (images, labels); NaN for a group without scores, which gets its prior labels.
    """
    lost = np.isnan(scores)
    filled = np.nan_to_num(scores)
    if decision.rule == "expected_f2":
        selected = decide_expected(calibrate(filled, labels, decision.calibration), decision.maximum)
    else:
        selected = select_groups(filled, labels, decision.groups)
    if lost.any():
        selected = np.where(lost, mark_prior(labels, decision), selected)
    return select_best(selected, filled)


def mark_prior(labels: Labels, decision: Decision) -> NDArray[np.bool_]:
    """Mark the prior labels of all groups, (labels,)."""
    prior = {label for ids in decision.prior.values() for label in ids}
    return np.array([label in prior for label in labels.ids])


def calibrate(scores: Scores, labels: Labels, calibration: Mapping[str, Calibration]) -> NDArray[np.float64]:
    """Return the probability of each label by its group's calibration curve, (images, labels).

    `scores`: (images, labels). On flat parts of a curve, a higher score still gives a higher probability.
    """
    probabilities = SHARE_OF_SCORE * scores.astype(np.float64)
    for group, curve in calibration.items():
        columns = np.array(labels.columns(group))
        calibrated = np.interp(scores[:, columns], curve.scores, curve.chances)
        probabilities[:, columns] += (1 - SHARE_OF_SCORE) * calibrated
    return probabilities


def decide_groups(scores: Scores, labels: Labels, rules: Mapping[str, GroupDecision]) -> NDArray[np.bool_]:
    """Select labels as `decide` does by each group's rule; `scores`: (images, labels), without NaN."""
    return select_best(select_groups(scores, labels, rules), scores)


def select_best(selected: NDArray[np.bool_], scores: Scores) -> NDArray[np.bool_]:
    """Select the label of the highest score for each image without a selected label; both (images, labels)."""
    bare = np.flatnonzero(~selected.any(axis=1))
    selected[bare, scores[bare].argmax(axis=1)] = True
    return selected


def select_groups(scores: Scores, labels: Labels, rules: Mapping[str, GroupDecision]) -> NDArray[np.bool_]:
    """Select labels by each group's threshold and label counts, (images, labels); `scores`: (images, labels)."""
    selected = np.zeros(scores.shape, np.bool_)
    for group, rule in rules.items():
        columns = np.array(labels.columns(group))
        selected[:, columns] = decide_group(scores[:, columns], rule)
    return selected


def decide_group(scores: Scores, rule: GroupDecision) -> NDArray[np.bool_]:
    """Select labels of one group; `scores`: (images, labels of the group). Equal scores rank in label order.

    Selects the first `minimum` labels, and further labels at or above the threshold among the first `maximum`.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None, :], axis=1)
    selected: NDArray[np.bool_] = ((scores >= rule.threshold) & (ranks < rule.maximum)) | (ranks < rule.minimum)
    return selected


def list_label_ids(selected: NDArray[np.bool_], labels: Labels) -> list[tuple[int, ...]]:
    """Return the ids of each image's labels, ascending; `selected`: (images, labels)."""
    return [tuple(sorted(labels.ids[column] for column in np.flatnonzero(row))) for row in selected]
