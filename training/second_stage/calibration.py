"""Calibration: one curve per group from scores to probabilities, and the reliability of these probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from inference.ensemble.blend import Scores
from inference.manifest.decision import Calibration
from zoo.metrics.selection import Truth

MOST_POINTS = 64
# Low bits of a float32 that are dropped to pool scores into cells; the rest has the precision of a float16.
DROPPED_BITS = 13
# A true label with probability 0 would have an infinite log loss.
SMALLEST_PROBABILITY = 1e-6
EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Reliability:
    """Agreement of probabilities with the truth, over pairs of image and label; arrays are (bins,)."""

    log_loss: float
    """Nats per pair."""
    chances: NDArray[np.float64]
    """Mean probability."""
    frequencies: NDArray[np.float64]
    """Share of true pairs."""
    counts: NDArray[np.int64]
    """Pairs."""


def fit_calibration(scores: Scores, truth: NDArray[np.bool_]) -> Calibration:
    """Fit an isotonic curve from a group's scores to probabilities, with at most MOST_POINTS points.

    `scores`, from 0 to 1, and `truth`: (images, labels of the group). Method: isotonic regression (Zadrozny and Elkan
    2002) on all pairs, pooled where scores agree to 11 significant bits. Each block becomes a point at its mean score,
    with straight lines between points (centred isotonic regression, Oron and Flournoy 2017), see also thin_curve.
    """
    means, true, pairs = pool_cells(scores, truth)
    fitted = IsotonicRegression(y_min=0, y_max=1).fit_transform(means, true / pairs, sample_weight=pairs)
    starts = np.flatnonzero(np.diff(fitted, prepend=-1))
    weights = np.add.reduceat(pairs, starts)
    points = np.add.reduceat(means * pairs, starts) / weights
    chances = fitted[starts]
    kept = thin_curve(points, chances, weights, MOST_POINTS)
    # Nine digits distinguish any two float32, so the scores still ascend.
    return Calibration(*(tuple(float(f"{value:.9g}") for value in part[kept]) for part in (points, chances)))


def pool_cells(
    scores: Scores, truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pool scores that differ only in the dropped bits; mean score, true pairs and pairs per cell, ascending."""
    flat = np.ascontiguousarray(scores, np.float32).ravel()
    cells = flat.view(np.uint32) >> DROPPED_BITS  # non-negative floats sort like their bits
    pairs = np.bincount(cells).astype(np.float64)
    used = np.flatnonzero(pairs)
    sums = np.bincount(cells, weights=flat)
    true = np.bincount(cells, weights=truth.ravel())
    return sums[used] / pairs[used], true[used].astype(np.float64), pairs[used]


def thin_curve(
    points: NDArray[np.float64], chances: NDArray[np.float64], pairs: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """Return the indices of at most `most` points to keep, ascending.

    Starts with both ends, then always adds the point farthest from the lines between the kept points, measured in
    standard errors of its probability. `points`, `chances` (the probabilities), `pairs`: (points,).
    """
    if len(points) <= most:
        return np.arange(len(points))
    scale = np.sqrt(pairs / (chances * (1 - chances) + 1 / pairs))
    kept = [0, len(points) - 1]
    while len(kept) < most:
        missed = scale * np.abs(np.interp(points, points[kept], chances[kept]) - chances)
        kept = sorted([*kept, int(missed.argmax())])
    return np.array(kept)


def measure_reliability(probabilities: Scores, truth: Truth) -> Reliability:
    """Measure the reliability of probabilities on pairs not used in their fit; both arguments: (images, labels).

    The bins are those of EDGES, without empty ones. Of soft labels, a pair is true by its share.
    """
    flat = probabilities.ravel().astype(np.float64)
    true = truth.ravel()
    logs = [np.log(np.clip(part, SMALLEST_PROBABILITY, 1)) for part in (flat, 1 - flat)]
    likelihoods = np.where(true, *logs) if true.dtype == np.bool_ else true * logs[0] + (1 - true) * logs[1]
    places = np.searchsorted(EDGES[1:-1], flat, side="right")
    counts = np.bincount(places)
    used = np.flatnonzero(counts)
    means, frequencies = (np.bincount(places, weights=part)[used] / counts[used] for part in (flat, true))
    return Reliability(float(-likelihoods.mean()), means, frequencies, counts[used])
