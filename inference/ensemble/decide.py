"""The answers to images from their scores: labels, or numbers, by the rule of the decision."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.ensemble.expected_f import decide_expected
from inference.ensemble.fitted_rules import FITTED_RULES
from inference.manifest.decision import Calibration, Decision, GroupDecision
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest, remove_stackers
from inference.task.answers import Answer, list_answers

# Share of the score in a probability: ranks labels of equal probability, and is too small to change an expected F-beta.
SHARE_OF_SCORE = 1e-6


def decide(scores: Scores, labels: Labels, decision: Decision) -> NDArray[Any]:
    """Return the answers by the decision's rule, (images, labels).

    `scores`: (images, labels); NaN for a group without scores. `thresholds` and `expected_f` select at least one label
    per image, bool; a group without scores gets its prior labels. For the other rules, see
    inference/ensemble/fitted_rules.py; missing scores are `decision.prior_scores`.
    """
    lost = np.isnan(scores)
    if decision.rule in FITTED_RULES:
        filled = np.where(lost, np.array(decision.prior_scores), scores) if lost.any() else scores
        return FITTED_RULES[decision.rule](filled, decision.fitted)
    filled = np.nan_to_num(scores)
    if decision.rule == "expected_f":
        probabilities = calibrate(filled, labels, decision.calibration)
        selected = decide_expected(probabilities, decision.maximum, decision.beta)
    elif decision.fitted.label_thresholds:
        selected = filled >= np.array(decision.fitted.label_thresholds)
    else:
        selected = select_groups(filled, labels, decision.groups)
    if lost.any():
        selected = np.where(lost, mark_prior(labels, decision), selected)
    return select_best(selected, filled)


def answer_prior(manifest: Manifest, labels: Labels) -> Answer:
    """Return the prior answer, of an image without any predictions."""
    # Does not import ONNX Runtime, because the notebook calls it before that is installed.
    nothing = np.full((1, len(labels.ids)), np.nan, np.float32)
    (answer,) = list_answers(decide(nothing, labels, remove_stackers(manifest).decision), labels, manifest.task)
    return answer


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
