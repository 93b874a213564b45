"""Sample-mean F2, fast enough to search over: each image's F-beta with beta 2, averaged."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores

# Rounded to what JSON prints shortly; finer steps move F2 by less than its noise on thousands of images.
THRESHOLDS = np.round(np.arange(0.005, 1, 0.005), 3)


def score_counts(hits: NDArray[Any], taken: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """F2 of each image from its numbers of labels taken rightly, taken, and true; 0 where it has none at all.

    5 hits / (4 true + taken), which is (1 + 4) P R / (4 P + R) for precision P and recall R.
    """
    f2: NDArray[np.float64] = 5 * hits / np.maximum(4 * true + taken, 1)
    return f2


def score_samples(taken: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F2 of each image, (images,), from the labels taken and the true ones, (images, labels) each."""
    return score_counts((taken & truth).sum(axis=1), taken.sum(axis=1), truth.sum(axis=1))


def count_above(scores: Scores, thresholds: NDArray[np.float64] = THRESHOLDS) -> NDArray[np.int64]:
    """How many labels of each image score at or above each threshold, (images, thresholds).

    `scores`: (images, labels); `thresholds`: ascending. Compared in the dtype of the scores, as numpy compares
    `scores >= 0.1`.
    """
    width = len(thresholds) + 1
    reached = np.searchsorted(thresholds.astype(scores.dtype), scores, side="right")
    places = reached + width * np.arange(len(scores))[:, None]
    histogram = np.bincount(places.ravel(), minlength=len(scores) * width).reshape(len(scores), width)
    return histogram[:, :0:-1].cumsum(axis=1, dtype=np.int64)[:, ::-1]


def find_threshold(scores: Scores, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold of THRESHOLDS with the best mean F2 when every label at or above it is taken, and that F2.

    `scores`, `truth`: (images, labels). Of equal ones, the lowest.
    """
    # A label that is not true gets a score below every threshold and so is never a hit.
    hits = count_above(np.where(truth, scores, scores.dtype.type(-1)))
    means = score_counts(hits, count_above(scores), truth.sum(axis=1, keepdims=True)).mean(axis=0)
    best = int(means.argmax())
    return float(THRESHOLDS[best]), float(means[best])
