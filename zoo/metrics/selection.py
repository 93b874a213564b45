"""Accuracy and quadratic kappa, and the labels or the class that an answer selects."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

HALF = 0.5
Answers = NDArray[Any]
"""(images, labels), as `decide` returns them: bool for selected labels, else numbers."""
Truth = NDArray[Any]
"""(images, labels): bool, or float32 for soft labels and values."""


def choose_classes(matrix: NDArray[Any]) -> NDArray[np.int64]:
    """Return the column with the highest number of each image, (images,); of equal ones the first.

    `matrix`: (images, labels), answers or truth, bool or numbers. One column is the probability of class 1 against
    class 0.
    """
    if matrix.shape[1] == 1:
        return (matrix[:, 0] >= HALF).astype(np.int64)
    classes: NDArray[np.int64] = matrix.argmax(axis=1)
    return classes


def pair_classes(answers: Answers, truth: Truth) -> NDArray[np.int64]:
    """Return the class of each image by the answer and by the truth, (images, 2)."""
    return np.stack([choose_classes(answers), choose_classes(truth)], axis=1)


def compare_classes(answers: Answers, truth: Truth) -> NDArray[np.float64]:
    """Return 1 for each image whose class is right, else 0, (images,); their mean is the accuracy."""
    right: NDArray[np.bool_] = choose_classes(answers) == choose_classes(truth)
    return right.astype(np.float64)


def score_kappa(classes: NDArray[np.int64]) -> float:
    """Return Cohen's kappa with quadratic weights; 1 if all answers and all truths are one class.

    `classes`: (images, 2), the answer and the truth, numbered in their order. One minus the mean squared distance
    divided by that of answers and truths drawn independently, as scikit-learn's cohen_kappa_score.
    """
    answer, true = classes.astype(np.int64).T
    found = len(classes) * int(((answer - true) ** 2).sum())
    squares = int((answer**2).sum() + (true**2).sum())
    by_chance = len(classes) * squares - 2 * int(answer.sum()) * int(true.sum())
    return 1 - found / by_chance if found else 1.0


def select_top(answers: Answers, count: int) -> NDArray[np.bool_]:
    """Select the `count` highest numbers of each image, (images, labels); equal numbers rank in label order."""
    order = np.argsort(-answers, axis=1, kind="stable")[:, :count]
    selected = np.zeros(answers.shape, np.bool_)
    np.put_along_axis(selected, order, True, axis=1)
    return selected
