"""Class weights before the argmax, for macro F-beta of one class per image."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from training.scoring.halves import HALVES
from zoo.metrics.f_beta import score_counts

POWERS = np.round(np.arange(0, 1.55, 0.05), 2)
FACTORS = np.exp2(np.linspace(-2, 2, 17))
MOST_CLASSES = 100
"""Classes that are weighted one by one: the time of this search grows with classes x images."""
MOST_PASSES = 5
SMALLEST_GAIN = 1e-12
DIGITS = 4
Weights = NDArray[np.float64]


def fit_class_weights(scores: Scores, classes: NDArray[np.int64], beta: float) -> Weights:
    """Return the weights of the classes, (classes,), with the best macro F-beta of the highest weighted score.

    `scores`: (images, classes); `classes`: the true ones, (images,). Two fits are compared: the best power of the
    inverse frequencies, which has one parameter (logit adjustment: Menon et al. 2021, Long-tail learning via logit
    adjustment), and from there each class's weight in turn, until nothing improves. The second is taken if it is the
    better one when each half of the images is decided by weights fitted to the other half; equal weights if neither is
    better than these.
    """
    fits: list[Callable[[Scores, NDArray[np.int64], float], Weights]] = [weigh_equally, fit_power]
    if scores.shape[1] <= MOST_CLASSES:
        fits.append(fit_each_class)
    if len(scores) < len(HALVES):
        return weigh_equally(scores, classes, beta)
    best = max(fits, key=lambda fit: score_crossed(fit, scores, classes, beta))
    return best(scores, classes, beta)


def score_crossed(
    fit: Callable[[Scores, NDArray[np.int64], float], Weights],
    scores: Scores,
    classes: NDArray[np.int64],
    beta: float,
) -> float:
    """Return macro F-beta of all images, each half decided by weights fitted to the other half."""
    chosen = np.empty_like(classes)
    for fitted, judged in (HALVES, HALVES[::-1]):
        chosen[judged] = (scores[judged] * fit(scores[fitted], classes[fitted], beta)).argmax(axis=1)
    return score_chosen(chosen, classes, scores.shape[1], beta)


def weigh_equally(scores: Scores, classes: NDArray[np.int64], beta: float) -> Weights:
    """Return a weight of 1 for each class."""
    del classes, beta
    return np.ones(scores.shape[1])


def fit_power(scores: Scores, classes: NDArray[np.int64], beta: float) -> Weights:
    """Return the power of the inverse class frequencies with the best macro F-beta; of equal ones, the lowest.

    One image is added to each class, so that a class without images has a finite weight.
    """
    size = scores.shape[1]
    counts = np.bincount(classes, minlength=size) + 1
    families = [(counts.max() / counts) ** power for power in POWERS]
    found = [score_chosen((scores * weights).argmax(axis=1), classes, size, beta) for weights in families]
    return round_weights(families[int(np.argmax(found))])


def fit_each_class(scores: Scores, classes: NDArray[np.int64], beta: float) -> Weights:
    """Improve the weights of `fit_power`, one class after another, by FACTORS, until none improves."""
    weights = fit_power(scores, classes, beta)
    weighted = scores * weights
    best = score_chosen(weighted.argmax(axis=1), classes, len(weights), beta)
    for _ in range(MOST_PASSES):
        before = best
        for column in range(len(weights)):
            candidates = round_weights(weights[column] * FACTORS)
            found = try_weights(scores[:, column], weighted, classes, column, candidates, beta)
            if found.max() > best + SMALLEST_GAIN:
                best = float(found.max())
                weights[column] = candidates[int(found.argmax())]
                weighted[:, column] = scores[:, column] * weights[column]
        if best == before:
            break
    return weights


def try_weights(
    own: Scores,
    weighted: NDArray[np.float64],
    classes: NDArray[np.int64],
    column: int,
    candidates: Weights,
    beta: float,
) -> NDArray[np.float64]:
    """Return macro F-beta for each candidate weight of one class, (candidates,).

    `own`: the scores of the class `column`, (images,); `weighted`: of all classes, (images, classes).
    """
    rest = weighted.argmax(axis=1)
    lost = np.flatnonzero(rest == column)
    without = weighted[lost]
    without[:, column] = -1
    rest[lost] = without.argmax(axis=1)
    highest = weighted[np.arange(len(rest)), rest]
    found = []
    for weight in candidates:
        score = own * weight
        wins = (score > highest) | ((score == highest) & (column < rest))
        found.append(score_chosen(np.where(wins, column, rest), classes, weighted.shape[1], beta))
    return np.array(found)


def round_weights(weights: Weights) -> Weights:
    """Return the weights, rounded for short JSON."""
    return np.array([float(f"{weight:.{DIGITS}g}") for weight in weights])


def score_chosen(chosen: NDArray[np.int64], classes: NDArray[np.int64], size: int, beta: float) -> float:
    """Return macro F-beta of the chosen classes, (images,), over classes that are true for an image or chosen."""
    predicted, true = np.bincount(chosen, minlength=size), np.bincount(classes, minlength=size)
    hits = np.bincount(classes[chosen == classes], minlength=size)
    present = predicted + true > 0
    return float(score_counts(hits, predicted, true, beta)[present].mean())
