"""Metrics of probabilities and numbers: log loss, KL divergence, RMSE."""

import numpy as np
from numpy.typing import NDArray

from zoo.metrics.selection import Answers, Truth

SMALLEST = 1e-15
"""Kaggle's distance of probabilities from 0 and 1 before a logarithm."""


def lose_logs(answers: Answers, truth: Truth) -> NDArray[np.float64]:
    """Return the log loss of each image, (images,), the mean over labels that each may be true or not.

    `answers`: probabilities, (images, labels), clipped to 1e-15 from 0 and 1; `truth`: bool or shares.
    """
    likely = np.clip(answers.astype(np.float64), SMALLEST, 1 - SMALLEST)
    true = truth.astype(np.float64)
    found: NDArray[np.float64] = -(true * np.log(likely) + (1 - true) * np.log1p(-likely)).mean(axis=1)
    return found


def lose_class_logs(answers: Answers, truth: Truth) -> NDArray[np.float64]:
    """Return the log loss of each image, (images,), for one class per image.

    `answers`: probabilities, (images, labels), divided by their sum, then clipped to 1e-15 from 0 and 1; `truth`: bool
    or shares that add up to 1.
    """
    likely = answers.astype(np.float64)
    total = likely.sum(axis=1, keepdims=True)
    likely = np.clip(likely / np.where(total > 0, total, 1), SMALLEST, 1 - SMALLEST)
    found: NDArray[np.float64] = -(truth * np.log(likely)).sum(axis=1, dtype=np.float64)
    return found


def diverge(answers: Answers, truth: Truth) -> NDArray[np.float64]:
    """Return the Kullback-Leibler divergence of each image, (images,): the sum of p log(p / q).

    `truth`: p, (images, labels), shares that add up to 1; one of 0 adds nothing. `answers`: q, clipped to 1e-15 from 0
    and 1.
    """
    likely = np.clip(answers.astype(np.float64), SMALLEST, 1 - SMALLEST)
    true = truth.astype(np.float64)
    found: NDArray[np.float64] = (true * np.log(np.where(true > 0, true, 1) / likely)).sum(axis=1)
    return found


def square_errors(answers: Answers, truth: Truth, width: float) -> NDArray[np.float64]:
    """Return the mean squared error of each image, (images,), in the competition's units.

    `answers`, `truth`: (images, labels), in units of the task's range of values, which is `width` wide.
    """
    errors = width * (answers.astype(np.float64) - truth.astype(np.float64))
    found: NDArray[np.float64] = (errors**2).mean(axis=1)
    return found


def take_root(squares: NDArray[np.float64]) -> float:
    """Return the root of the mean of squared errors, (images,)."""
    return float(np.sqrt(squares.mean()))
