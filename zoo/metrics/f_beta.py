"""F-beta: (1 + b²) P R / (b² P + R) of precision P and recall R; per image, over all pairs, or per label."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores

# Rounded for short JSON; finer steps change F2 by less than its noise on thousands of images.
THRESHOLDS = np.round(np.arange(0.005, 1, 0.005), 3)
SMALL_SQUARE = 4


def score_counts(hits: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any], beta: float) -> NDArray[np.float64]:
    """Return F-beta from numbers of hits, predicted labels and true labels, arrays of one shape; 0 without any label.

    (1 + b²) hits / (b² true + predicted), which is (1 + b²) P R / (b² P + R) for precision P and recall R.
    """
    square: float = beta * beta
    if square.is_integer() and square <= SMALL_SQUARE:
        square = int(square)  # keeps small integer types, which are faster
    found: NDArray[np.float64] = (1 + square) * hits / np.maximum(square * true + predicted, 1)
    return found


def score_samples(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], beta: float) -> NDArray[np.float64]:
    """Return F-beta of each image, (images,), from predicted and true labels, (images, labels) each."""
    return score_counts((predicted & truth).sum(axis=1), predicted.sum(axis=1), truth.sum(axis=1), beta)


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


def find_threshold(scores: Scores, truth: NDArray[np.bool_], beta: float) -> tuple[float, float]:
    """Return the threshold of THRESHOLDS with the best mean F-beta of the images, and that F-beta.

    `scores`, `truth`: (images, labels); labels at or above the threshold are predicted. Of equally good thresholds,
    returns the lowest.
    """
    # A score below every threshold, so that a label that is not true is never a hit.
    hits = count_above(np.where(truth, scores, scores.dtype.type(-1)))
    means = score_counts(hits, count_above(scores), truth.sum(axis=1, keepdims=True), beta).mean(axis=0)
    best = int(means.argmax())
    return float(THRESHOLDS[best]), float(means[best])


def count_pairs(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the numbers of hits, predicted labels and true labels of each image, (images, 3)."""
    return np.stack([(predicted & truth).sum(axis=1), predicted.sum(axis=1), truth.sum(axis=1)], axis=1)


def score_pairs(counts: NDArray[np.int64], beta: float) -> float:
    """Return F-beta over all pairs of image and label, as scikit-learn's average="micro"; `counts`: (images, 3)."""
    hits, predicted, true = counts.sum(axis=0)
    return float(score_counts(hits, predicted, true, beta))


def mark_cells(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return what `score_labels` needs of each image, (images, labels): 1 for a predicted label + 2 for a true one."""
    return predicted.astype(np.uint8) + np.uint8(2) * truth.astype(np.uint8)


def score_labels(cells: NDArray[np.uint8], beta: float) -> float:
    """Return the mean over all labels of the F-beta of each, 0 for one that is neither true nor predicted.

    `cells`: (images, labels), of `mark_cells`. As scikit-learn's average="macro" for several labels per image.
    """
    hits = (cells == 3).sum(axis=0)
    predicted = (cells & 1).sum(axis=0, dtype=np.int64)
    true = (cells >> 1).sum(axis=0, dtype=np.int64)
    return float(score_counts(hits, predicted, true, beta).mean())


def score_classes(classes: NDArray[np.int64], beta: float) -> float:
    """Return the mean over classes of the F-beta of each; classes that are neither true nor predicted do not count.

    `classes`: (images, 2), the answer and the truth. As scikit-learn's average="macro" for one class per image.
    """
    size = int(classes.max()) + 1
    predicted, true = (np.bincount(column, minlength=size) for column in classes.T)
    hits = np.bincount(classes[classes[:, 0] == classes[:, 1], 0], minlength=size)
    present = predicted + true > 0
    return float(score_counts(hits, predicted, true, beta)[present].mean())
