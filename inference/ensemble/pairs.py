"""Pairs of image and label that the tree stacker scores again, and their features."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.images.traits import TRAITS

Floats = NDArray[np.float32]
Integers = NDArray[np.integer[Any]]
# Number of members whose scores are combined; the fit puts the best members first. The 14 members of a large zoo would
# give 1,365 sums, products and quotients; 4 members give 30.
PAIRED = 4
# Below the smallest float16, so that it changes no quotient; a quotient by 0 becomes large and finite.
SMALLEST = np.float32(1e-8)


def find_pairs(scores: Floats, top: int, counts: Integers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the pairs of image and label where a member ranks the label among the image's first `top`.

    `scores`: (images, members, labels), without NaN; `counts`: training images per label, (labels,); a label with 0
    makes no pair, as the stacker could not learn it. Of equal scores, the lower column ranks first. Returns the rows
    and the columns of the pairs, sorted by row, then by column.
    """
    images, members, labels = scores.shape
    if top >= labels:
        found = np.ones((images, labels), np.bool_)
    else:
        found = np.zeros((images, labels), np.bool_)
        for place in range(members if top > 0 else 0):
            found |= _mark_top(scores[:, place], top)
    rows, columns = np.nonzero(found & (counts > 0))
    return rows, columns


def compute_features(
    scores: Floats,
    rows: Integers,
    columns: Integers,
    counts: Integers,
    groups: Integers,
    traits: Floats,
    extra: Floats,
) -> Floats:
    """Compute the features of each pair in the order of `name_features`, (pairs, features).

    `scores`: (images, members, labels), without NaN; `rows`, `columns`: of the pairs; `counts`: training images per
    label, (labels,); `groups`: index of each label's group, (labels,); `traits`: TRAITS of each image, (images, 4);
    `extra`: outputs of the members of group 'features', side by side, (images, outputs), without NaN. Needs
    memory for several arrays of the result's size: call it with a few thousand images at a time.
    """
    values = np.ascontiguousarray(scores[rows, :, columns].T)  # (members, pairs)
    features = [*values]
    paired = values[:PAIRED]
    for one, two in combinations(paired, 2):
        features += [one + two, one * two, one / (two + SMALLEST)]
    for one, two, three in combinations(paired, 3):
        features += [one + two + three, one * two * three, one / (two + three + SMALLEST)]
    features += _summarise(values)
    mean = scores.mean(axis=1)  # (images, labels)
    features += [_rank(mean)[rows, columns], *_look_around(mean, rows, columns, groups)]
    features += [counts[columns], groups[columns], *traits[rows].T]
    stacked = np.empty((len(rows), len(features) + extra.shape[1]), np.float32)
    for place, feature in enumerate(features):
        stacked[:, place] = feature
    stacked[:, len(features) :] = extra[rows]
    return stacked


def name_features(members: Sequence[str], extra: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Return the names of the features of `compute_features`.

    `members`: in the order of the scores; `extra`: the members of group 'features' and their numbers of outputs, in the
    order of `compute_features`.
    """
    names = list(members)
    paired = members[:PAIRED]
    for one, two in combinations(paired, 2):
        names += [f"{one} + {two}", f"{one} * {two}", f"{one} / {two}"]
    for one, two, three in combinations(paired, 3):
        names += [f"{one} + {two} + {three}", f"{one} * {two} * {three}", f"{one} / ({two} + {three})"]
    names += ["mean", "median", "deviation", "minimum", "maximum", "rank"]
    names += ["sum of group", "best of group", "mean / best of group", "sum elsewhere", "best elsewhere", "squares"]
    names += ["count", "group", *TRAITS]
    names += [f"{member}[{place}]" for member, outputs in extra for place in range(outputs)]
    return tuple(names)


def share_scores(scores: Floats) -> Floats:
    """Divide the scores of each image by their sum, for one label per image; `scores`: (images, labels).

    An image whose scores are all 0 keeps them.
    """
    sums = scores.sum(axis=1, keepdims=True)
    shared: Floats = np.divide(scores, sums, out=scores.copy(), where=sums > 0)
    return shared


def _mark_top(scores: Floats, top: int) -> NDArray[np.bool_]:
    """Mark the first `top` labels of each image, (images, labels); `scores`: of one member, (images, labels)."""
    bars = np.partition(scores, -top, axis=1)[:, -top, None]
    marked = scores >= bars
    crowded = np.flatnonzero(marked.sum(axis=1) > top)
    above, level = scores[crowded] > bars[crowded], scores[crowded] == bars[crowded]
    room = top - above.sum(axis=1, keepdims=True)
    marked[crowded] = above | (level & (level.cumsum(axis=1) <= room))
    return marked


def _summarise(values: Floats) -> list[Floats]:
    """Return mean, median, deviation, minimum and maximum over members, each (pairs,); `values`: (members, pairs)."""
    ordered = np.sort(values, axis=0)
    middle = (len(values) - 1) / 2
    median = (ordered[int(middle)] + ordered[int(middle + 0.5)]) / 2
    return [values.mean(axis=0), median, values.std(axis=0), ordered[0], ordered[-1]]


def _look_around(mean: Floats, rows: Integers, columns: Integers, groups: Integers) -> list[Floats]:
    """Return features from all scores of the pair's image, each (pairs,); `mean`: over members, (images, labels).

    Sum and maximum of the pair's group, the pair's score / that maximum, sum and maximum of the other groups (0 if
    there is only one group), and the sum of squares. They show how many labels to expect, and how certain the best is.
    """
    inside = np.zeros((2, len(mean), int(groups.max()) + 1), np.float32)  # (sum or highest, images, groups)
    outside = np.zeros_like(inside)
    for group in np.unique(groups):
        for around, part in ((inside, mean[:, groups == group]), (outside, mean[:, groups != group])):
            around[0, :, group], around[1, :, group] = part.sum(axis=1), part.max(axis=1, initial=0)
    own = groups[columns]
    share = mean[rows, columns] / (inside[1, rows, own] + SMALLEST)
    return [*inside[:, rows, own], share, *outside[:, rows, own], np.square(mean).sum(axis=1)[rows]]


def _rank(scores: Floats) -> NDArray[np.int32]:
    """Return the rank of each label in its image, 0 for the highest, (images, labels); equal ones in label order."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty(scores.shape, np.int32)
    np.put_along_axis(ranks, order, np.arange(scores.shape[1], dtype=np.int32)[None], axis=1)
    return ranks
