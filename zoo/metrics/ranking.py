"""Metrics of an order: MAP@k of the labels of an image, ROC AUC of the images of a label."""

import numpy as np
from numpy.typing import NDArray

from zoo.metrics.selection import Answers


def average_precisions(answers: Answers, truth: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Return the average precision at k of each image, (images,); their mean is Kaggle's MAP@k.

    `answers`: (images, labels), a higher number ranks first and equal ones in label order; -inf is a label that was
    not given. The sum of the precisions at the ranks of true labels, divided by the smaller of k and the number of
    true labels; 0 for an image without a true label.
    """
    count = min(k, answers.shape[1])
    order = np.argsort(-answers.astype(np.float64), axis=1, kind="stable")[:, :count]
    hits = np.take_along_axis(truth & (answers > -np.inf), order, axis=1)
    precisions = hits.cumsum(axis=1) / np.arange(1, count + 1)
    found: NDArray[np.float64] = (precisions * hits).sum(axis=1) / np.clip(truth.sum(axis=1), 1, k)
    return found


def rank_images(answers: Answers, truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return what `score_areas` needs of each image, (images, labels): twice the rank of the answer + 1 if true.

    Equal answers for a label have equal ranks, so that a resample of images needs no sorting.
    """
    codes = np.empty(answers.shape, np.int64)
    for column in range(answers.shape[1]):
        codes[:, column] = np.unique(answers[:, column], return_inverse=True)[1]
    return 2 * codes + truth


def score_areas(codes: NDArray[np.int64]) -> float:
    """Return the mean over labels of the area under the ROC curve; `codes`: (images, labels), of `rank_images`.

    The area is the share of pairs of a true and another image in which the true one scores higher; equal scores count
    half. Labels that are true for all images or for none have no area and are skipped (scikit-learn refuses them); NaN
    if no label is left.
    """
    areas = []
    for column in codes.T:
        counts = np.bincount(column, minlength=2 * (int(column.max()) // 2 + 1)).reshape(-1, 2)
        others, true = counts[:, 0], counts[:, 1]
        pairs = int(others.sum()) * int(true.sum())
        if pairs:
            areas.append(float((true * (others.cumsum() - others / 2)).sum()) / pairs)
    return float(np.mean(areas)) if areas else float("nan")
