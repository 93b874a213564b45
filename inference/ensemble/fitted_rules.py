"""Decision rules of tasks in which an image has one label, a ranked list, probabilities or a number."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.manifest.decision import Fitted
from inference.manifest.values import DecisionRule

SMALLEST = 1e-12  # probability, so that a logarithm is finite


def rank_labels(scores: Scores, fitted: Fitted) -> NDArray[Any]:
    """Return the scores to rank by, (images, labels): weighted by label where weights were fitted."""
    return scores * np.array(fitted.label_weights) if fitted.label_weights else scores


def cut_classes(scores: Scores, fitted: Fitted) -> NDArray[np.bool_]:
    """Select one of ordered classes, (images, labels): the expected class, cut into classes at `cuts`.

    `scores`: probabilities, (images, labels in the order of the classes).
    """
    expected = scores.astype(np.float64) @ np.arange(scores.shape[1])
    chosen = np.searchsorted(np.array(fitted.cuts), expected, side="right")
    selected = np.zeros(scores.shape, np.bool_)
    selected[np.arange(len(selected)), chosen] = True
    return selected


def adjust_probabilities(scores: Scores, fitted: Fitted) -> NDArray[np.float64]:
    """Return probabilities, (images, labels): less or more certain by `temperature`, kept away from 0 and 1 by `clip`.

    With `normalise`, those of an image add up to 1. Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    chances = scores.astype(np.float64)
    if fitted.temperature != 1:
        bounded = chances.clip(SMALLEST, 1 - SMALLEST)
        logits = np.log(bounded) if fitted.normalise else np.log(bounded) - np.log1p(-bounded)
        logits /= fitted.temperature
        if fitted.normalise:
            chances = np.exp(logits - logits.max(axis=1, keepdims=True))
            chances /= chances.sum(axis=1, keepdims=True)
        else:
            chances = np.exp(-np.logaddexp(0, -logits))
    clipped: NDArray[np.float64] = chances.clip(fitted.clip, 1 - fitted.clip)
    if not fitted.normalise:
        return clipped
    sums = clipped.sum(axis=1, keepdims=True)
    even = np.full_like(clipped, 1 / clipped.shape[1])
    normal: NDArray[np.float64] = np.divide(clipped, sums, out=even, where=sums > 0)
    return normal


def scale_numbers(scores: Scores, fitted: Fitted) -> NDArray[np.float64]:
    """Return numbers, (images, 1), by a straight line."""
    numbers: NDArray[np.float64] = fitted.slope * scores.astype(np.float64) + fitted.intercept
    return numbers


FITTED_RULES: Mapping[DecisionRule, Callable[[Scores, Fitted], NDArray[Any]]] = {
    "ranked": rank_labels,
    "cut_points": cut_classes,
    "probabilities": adjust_probabilities,
    "number": scale_numbers,
}
