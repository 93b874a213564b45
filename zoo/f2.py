"""Sample-mean F2: the F-beta of each image with beta 2, averaged over images; fast enough for a search."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores

# Rounded for short JSON; finer steps change F2 by less than its noise on thousands of images.
THRESHOLDS = np.round(np.arange(0.005, 1, 0.005), 3)


def score_counts(hits: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """Return F2 of each image from its numbers of hits, predicted labels and true labels; 0 without any label.

    5 hits / (4 true + predicted), which is (1 + 4) P R / (4 P + R) for precision P and recall R.
    """
    f2: NDArray[np.float64] = 5 * hits / np.maximum(4 * true + predicted, 1)
    return f2


def score_samples(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return F2 of each image, (images,), from predicted and true labels, (images, labels) each."""
    return score_counts((predicted & truth).sum(axis=1), predicted.sum(axis=1), truth.sum(axis=1))


def count_above(scores: Scores, thresholds: NDArray[np.float64] = THRESHOLDS) -> NDArray[np.int64]:
    """Count the labels of each image that score at or above each threshold, (images, thresholds).

    `scores`: (images, labels); `thresholds`: ascending. Compares in the dtype of the scores, as numpy does for
    `scores >= 0.1`.
    """
    width = len(thresholds) + 1
    reached = np.searchsorted(thresholds.astype(scores.dtype), scores, side="right")
    places = reached + width * np.arange(len(scores))[:, None]
    histogram = np.bincount(places.ravel(), minlength=len(scores) * width).reshape(len(scores), width)
    return histogram[:, :0:-1].cumsum(axis=1, dtype=np.int64)[:, ::-1]


def find_threshold(scores: Scores, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the threshold of THRESHOLDS with the best mean F2 of the labels at or above it, and that F2.

    `scores`, `truth`: (images, labels). Of equally good thresholds, returns the lowest.
    """
    # A score below every threshold, so that a label that is not true is never a hit.
    hits = count_above(np.where(truth, scores, scores.dtype.type(-1)))
    means = score_counts(hits, count_above(scores), truth.sum(axis=1, keepdims=True)).mean(axis=0)
    best = int(means.argmax())
    return float(THRESHOLDS[best]), float(means[best])
