"""From scores to chances: a curve for each group, fitted out of fold, and how well chances hold."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from inference.ensemble.blend import Scores
from inference.manifest.records import Calibration

MOST_POINTS = 64
# Bits of a float32 that are dropped to make cells of scores: the others are a float16's precision at any size.
DROPPED_BITS = 13
# A chance of 0 that comes true would cost an infinite log loss.
SMALLEST_CHANCE = 1e-6
EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Reliability:
    """How chances hold.

    `log_loss`: nats a pair of image and label. For each bin of chances, `chances`: their mean; `frequencies`: how
    often the label was true; `counts`: pairs.
    """

    log_loss: float
    chances: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    counts: NDArray[np.int64]


def fit_calibration(scores: Scores, truth: NDArray[np.bool_]) -> Calibration:
    """The isotonic curve from a group's scores to chances, in at most MOST_POINTS points.

    `scores`, from 0 to 1, and `truth`: (images, labels of the group). Isotonic regression (Zadrozny and Elkan 2002) on
    all pairs, those whose scores agree to 11 bits put together; each of its blocks becomes a point at its mean score,
    with straight lines between (centred isotonic regression, Oron and Flournoy 2017). Of more points those are kept
    that matter most, see thin_curve.
    """
    means, true, pairs = pool_cells(scores, truth)
    fitted = IsotonicRegression(y_min=0, y_max=1).fit_transform(means, true / pairs, sample_weight=pairs)
    starts = np.flatnonzero(np.diff(fitted, prepend=-1))
    weights = np.add.reduceat(pairs, starts)
    points = np.add.reduceat(means * pairs, starts) / weights
    chances = fitted[starts]
    kept = thin_curve(points, chances, weights, MOST_POINTS)
    # Nine digits tell any two float32 apart, so that the scores still ascend.
    return Calibration(*(tuple(float(f"{value:.9g}") for value in part[kept]) for part in (points, chances)))


def pool_cells(
    scores: Scores, truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean score, true pairs and pairs of each cell of scores that differ in the dropped bits only, ascending."""
    flat = np.ascontiguousarray(scores, np.float32).ravel()
    cells = flat.view(np.uint32) >> DROPPED_BITS  # the bits of floats of at least 0 ascend as they do
    pairs = np.bincount(cells).astype(np.float64)
    used = np.flatnonzero(pairs)
    sums = np.bincount(cells, weights=flat)
    true = np.bincount(cells, weights=truth.ravel())
    return sums[used] / pairs[used], true[used].astype(np.float64), pairs[used]


def thin_curve(
    points: NDArray[np.float64], chances: NDArray[np.float64], pairs: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """Positions of at most `most` points to keep, ascending: the ends, then always the one that is missed by most.

    Missed by the straight lines between those kept, in standard errors of its chance: a small chance of many pairs
    counts as a large one of few. `points`, `chances`, `pairs`: (points,).
    """
    if len(points) <= most:
        return np.arange(len(points))
    scale = np.sqrt(pairs / (chances * (1 - chances) + 1 / pairs))
    kept = [0, len(points) - 1]
    while len(kept) < most:
        missed = scale * np.abs(np.interp(points, points[kept], chances[kept]) - chances)
        kept = sorted([*kept, int(missed.argmax())])
    return np.array(kept)


def measure_reliability(chances: Scores, truth: NDArray[np.bool_]) -> Reliability:
    """How well chances hold on pairs that they were not fitted to; `chances`, `truth`: (images, labels).

    Bins are those of EDGES, empty ones left out.
    """
    flat = chances.ravel().astype(np.float64)
    true = truth.ravel()
    likelihood = np.clip(np.where(true, flat, 1 - flat), SMALLEST_CHANCE, 1)
    places = np.searchsorted(EDGES[1:-1], flat, side="right")
    counts = np.bincount(places)
    used = np.flatnonzero(counts)
    means, frequencies = (np.bincount(places, weights=part)[used] / counts[used] for part in (flat, true))
    return Reliability(float(-np.log(likelihood).mean()), means, frequencies, counts[used])
