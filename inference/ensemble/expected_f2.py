"""Chances to labels: for each image the set of labels with the highest expected F2."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Chances = NDArray[np.floating[Any]]
# So many images at a time keep the distributions in a core's cache.
CHUNK = 256
# What float64 cannot tell apart is no gain.
SMALLEST_GAIN = 1e-12


def decide_expected(chances: Chances, maximum: int) -> NDArray[np.bool_]:
    """The labels taken, (images, labels): the 1 to `maximum` labels of each image that maximise its expected F2.

    `chances`: of each label to be true, from 0 to 1, (images, labels), taken as independent. Then the best k labels
    are the k likeliest, and the expected F2 of each k follows from how many of those and how many of the others are
    true (Ye, Chai, Lee and Chieu 2012, Optimizing F-measures: a tale of two approaches; for dependent labels
    Dembczyński, Waegeman, Cheng and Hüllermeier 2011, An exact algorithm for F-measure maximization). Equal chances
    rank in label order; of equal expectations the fewer labels are taken. An image without a true label counts 0.
    """
    taken = np.zeros(chances.shape, np.bool_)
    for start in range(0, len(chances), CHUNK):
        part = chances[start : start + CHUNK].astype(np.float64)
        ranked = rank_likeliest(part, min(maximum, part.shape[1]))
        expected = expect_f2(part, ranked)
        best = (expected >= expected.max(axis=0) - SMALLEST_GAIN).argmax(axis=0)
        keep = np.arange(ranked.shape[1]) <= best[:, None]
        np.put_along_axis(taken[start : start + CHUNK], ranked, keep, axis=1)
    return taken


def rank_likeliest(chances: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Columns of each image's `count` likeliest labels, the likeliest first, equal ones in label order.

    `chances`: (images, labels). For the few that are wanted this is faster than a stable sort of all.
    """
    left = chances.copy()
    ranked = np.empty((len(left), count), np.int64)
    for place in range(count):
        ranked[:, place] = left.argmax(axis=1)
        np.put_along_axis(left, ranked[:, place, None], -1, axis=1)
    return ranked


def expect_f2(chances: NDArray[np.float64], ranked: NDArray[np.int64]) -> NDArray[np.float64]:
    """Expected F2 of the first 1, 2, ... of the `ranked` columns of each image, (ranked, images).

    `chances`: (images, labels); `ranked`: (images, ranked).
    """
    first = np.take_along_axis(chances, ranked, axis=1).T
    rest = chances.copy()
    np.put_along_axis(rest, ranked, 0, axis=1)
    hits = [count_none(len(first), len(chances))]  # true ones among the first k, (1 + ranked, images)
    for chance in first:
        hits.append(hits[-1].copy())
        add_label(hits[-1], chance)
    others = count_none(bound_true(chances), len(chances))  # true ones among all but the first k, (bins, images)
    for chance in np.ascontiguousarray(rest.T):
        if chance.any():
            add_label(others, chance)
    expected = np.empty((len(first), len(chances)))
    misses = np.arange(len(others))
    for taken in range(len(first), 0, -1):
        right = np.arange(1, taken + 1)[:, None]
        f2 = 5 * right / (taken + 4 * (right + misses))
        expected[taken - 1] = (hits[taken][1 : taken + 1] * (f2 @ others)).sum(axis=0)
        add_label(others, first[taken - 1])
    return expected


def bound_true(chances: NDArray[np.float64]) -> int:
    """A number of true labels that any image of `chances`, (images, labels), passes with a chance below 2e-8.

    By Bernstein's inequality a sum of independent labels with mean m passes m + t with a chance of at most
    exp(-t² / 2(m + t/3)), which t = 6 sqrt(m) + 12 makes at most exp(-18).
    """
    mean = float(chances.sum(axis=1).max())
    return min(int(chances.shape[1]), math.ceil(mean + 6 * math.sqrt(mean) + 12))


def count_none(most: int, images: int) -> NDArray[np.float64]:
    """The distribution, over 0 to `most`, of the number of true labels among none: (1 + most, images)."""
    distribution = np.zeros((1 + most, images))
    distribution[0] = 1
    return distribution


def add_label(distribution: NDArray[np.float64], chance: NDArray[np.float64]) -> None:
    """Count one more label in place; the last bin keeps what would pass it.

    `distribution`: over the number of true labels, (bins, images); `chance`: (images,).
    """
    moved = distribution[:-1] * chance
    distribution[:-1] -= moved
    distribution[1:] += moved
