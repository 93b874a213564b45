"""Views (test-time augmentation): what a model sees of an image, and how the scores of several views are combined."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.basics.logarithms import take_logarithms
from inference.manifest.labels import Labels
from inference.manifest.model import FEATURES
from inference.manifest.values import MIRRORS, Merge, Mirror, Size, split_view

Batch = NDArray[np.uint8]  # (images, height, width, 3)
Scores = NDArray[np.floating[Any]]

TURNED: Mapping[str, Callable[[Batch], Batch]] = {
    "identity": lambda batch: batch,
    "hflip": lambda batch: batch[:, :, ::-1],
    "vflip": lambda batch: batch[:, ::-1],
    "rot180": lambda batch: batch[:, ::-1, ::-1],
    "transpose": lambda batch: batch.swapaxes(1, 2),
    "rot90": lambda batch: batch.swapaxes(1, 2)[:, ::-1],
    "rot270": lambda batch: batch.swapaxes(1, 2)[:, :, ::-1],
    "transverse": lambda batch: batch.swapaxes(1, 2)[:, ::-1, ::-1],
}
"""By orientation; rot90 is counter-clockwise, as in Pillow and numpy."""


def place_cut(corner: str | None, shape: Size, size: Size) -> tuple[int, int]:
    """Return top and left of a cut of `size` in an array of `shape`; None: the centre, as timm's centre crop."""
    rest = shape[0] - size[0], shape[1] - size[1]
    if corner is None:
        return round(rest[0] / 2), round(rest[1] / 2)
    vertical, horizontal = corner.split("_")
    return (0 if vertical == "top" else rest[0]), (0 if horizontal == "left" else rest[1])


def show_view(batch: Batch, view: str, size: Size) -> Batch:
    """Return a view of a batch, (images, height, width, 3), of the network's input `size`.

    `batch`: in the shape of the view's geometry (inference/images/geometry.py), so that its scale is done.
    """
    parts = split_view(view)
    top, left = place_cut(parts.corner, (batch.shape[1], batch.shape[2]), size)
    cut = batch[:, top : top + size[0], left : left + size[1]]
    return np.ascontiguousarray(TURNED[parts.orientation](cut))


def merge_views(parts: Sequence[tuple[int, Scores]], merge: Merge) -> NDArray[np.float32]:
    """Combine scores of several views, (images, labels) each, given as (number of views merged in it, scores).

    `geometric` is the mean of logarithms, which does not underflow.
    """
    if merge == "maximum":
        highest: NDArray[np.float32] = np.max([scores for _, scores in parts], axis=0).astype(np.float32)
        return highest
    logarithms = merge == "geometric"
    shown = [(count, take_logarithms(part) if logarithms else part) for count, part in parts]
    total: NDArray[np.float32] = np.sum([np.float32(count) * part for count, part in shown], axis=0, dtype=np.float32)
    mean: NDArray[np.float32] = total / np.float32(sum(count for count, _ in shown))
    return np.exp(mean, out=mean) if logarithms else mean


def exchange_columns(
    view: str, group: str, labels: Labels, exchanged: Mapping[Mirror, Sequence[Sequence[int]]]
) -> NDArray[np.int64]:
    """Return, for each score of a model in a view, the place of the score that it means, (labels of the group,).

    `exchanged`: `labels.exchanged` of the manifest. In a mirrored image, what looks like the left is the right.
    """
    ids = [labels.ids[column] for column in labels.columns(group)] if group != FEATURES else []
    partner: dict[int, int] = {label: label for label in ids}
    for mirror in MIRRORS.get(split_view(view).orientation, ()):
        swapped = {one: two for pair in exchanged.get(mirror, ()) for one, two in (pair, tuple(pair)[::-1])}
        partner = {label: swapped.get(other, other) for label, other in partner.items()}
    places = {label: place for place, label in enumerate(ids)}
    return np.array([places[partner[label]] for label in ids], np.int64)
