"""Selection of labels from probabilities: for each image the set of labels with the highest expected F-beta."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating[Any]]
CHUNK = 256  # images per step, so that the distributions fit into a core's cache
SMALLEST_GAIN = 1e-12  # smaller differences are rounding errors of float64


def decide_expected(probabilities: Probabilities, maximum: int, beta: float) -> NDArray[np.bool_]:
    """Select the 1 to `maximum` labels of each image that maximise its expected F-beta, (images, labels).

    `probabilities`: from 0 to 1, (images, labels), assumed to be independent. Then the best k labels are the k most
    probable, and the expected F for each k follows from the numbers of true labels among them and among the others
    (Ye, Chai, Lee and Chieu 2012, Optimizing F-measures: a tale of two approaches; for dependent labels
    Dembczyński, Waegeman, Cheng and Hüllermeier 2011, An exact algorithm for F-measure maximization). Equal
    probabilities rank in label order; of equal F, the smaller set is selected. Without true labels, F is 0.
    """
    selected = np.zeros(probabilities.shape, np.bool_)
    for start in range(0, len(probabilities), CHUNK):
        part = probabilities[start : start + CHUNK].astype(np.float64)
        ranked = rank_likeliest(part, min(maximum, part.shape[1]))
        expected = expect_f(part, ranked, beta)
        best = (expected >= expected.max(axis=0) - SMALLEST_GAIN).argmax(axis=0)
        keep = np.arange(ranked.shape[1]) <= best[:, None]
        np.put_along_axis(selected[start : start + CHUNK], ranked, keep, axis=1)
    return selected


def rank_likeliest(probabilities: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the columns of each image's `count` most probable labels, highest first, equal ones in label order.

    `probabilities`: (images, labels). For a small `count` this is faster than a stable sort of all labels.
    """
    left = probabilities.copy()
    ranked = np.empty((len(left), count), np.int64)
    for place in range(count):
        ranked[:, place] = left.argmax(axis=1)
        np.put_along_axis(left, ranked[:, place, None], -1, axis=1)
    return ranked


def expect_f(probabilities: NDArray[np.float64], ranked: NDArray[np.int64], beta: float) -> NDArray[np.float64]:
    """Return the expected F-beta of the first 1, 2, ... `ranked` columns of each image, (ranked, images).

    `probabilities`: (images, labels); `ranked`: (images, ranked).
    """
    images = len(probabilities)
    first = np.take_along_axis(probabilities, ranked, axis=1).T
    rest = probabilities.copy()
    np.put_along_axis(rest, ranked, 0, axis=1)
    hits = [count_none(len(first), images)]  # number of true labels among the first k, (1 + ranked, images)
    for probability in first:
        hits.append(hits[-1].copy())
        add_label(hits[-1], probability)
    others = count_none(bound_true(probabilities), images)  # number of true labels after the first k, (bins, images)
    for probability in np.ascontiguousarray(rest.T):
        if probability.any():
            add_label(others, probability)
    expected = np.empty((len(first), images))
    misses = np.arange(len(others))
    for count in range(len(first), 0, -1):
        right = np.arange(1, count + 1)[:, None]
        scores = (1 + beta**2) * right / (count + beta**2 * (right + misses))
        expected[count - 1] = (hits[count][1 : count + 1] * (scores @ others)).sum(axis=0)
        add_label(others, first[count - 1])
    return expected


def bound_true(probabilities: NDArray[np.float64]) -> int:
    """Return a number of true labels that an image exceeds with a probability below 2e-8.

    `probabilities`: (images, labels). By Bernstein's inequality a sum of independent labels with mean m exceeds m + t
    with a probability of at most exp(-t² / 2(m + t/3)), which is at most exp(-18) for t = 6 sqrt(m) + 12.
    """
    mean = float(probabilities.sum(axis=1).max())
    return min(int(probabilities.shape[1]), math.ceil(mean + 6 * math.sqrt(mean) + 12))


def count_none(most: int, images: int) -> NDArray[np.float64]:
    """Return the distribution of the number of true labels before any label is added, (1 + most, images)."""
    distribution = np.zeros((1 + most, images))
    distribution[0] = 1
    return distribution


def add_label(distribution: NDArray[np.float64], probability: NDArray[np.float64]) -> None:
    """Add one label to the distribution in place; the last bin also counts all larger numbers.

    `distribution`: of the number of true labels, (bins, images); `probability`: of the label, (images,).
    """
    moved = distribution[:-1] * probability
    distribution[:-1] -= moved
    distribution[1:] += moved
