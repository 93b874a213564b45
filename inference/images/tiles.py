"""Tiles: where an image is long, a model looks at squares along its long side instead of at one square of the whole."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.decoded import Box, Decoded, cut_box
from inference.manifest import Tiles
from inference.rules import Merge


def plan_tiles(size: tuple[int, int], aspect: float, most: int) -> list[Box]:
    """The tiles of an image of `size` (width, height), along its long side; where that is not long enough, the whole.

    `aspect`, `most`: as the manifest has them.
    The tiles are squares of the short side, evenly spaced from end to end. Neighbours share a quarter at least, so that
    little is cut in two. Where `most` squares would not cover the image, the tiles are longer than squares.
    """
    width, height = size
    short, long = sorted(size)
    if long <= aspect * short:
        return [(0, 0, width, height)]
    # `most` tiles that start three quarters of their length apart cover (3 most + 1) / 4 of that length.
    length = max(short, -(-4 * long // (3 * most + 1)))
    span = long - length
    count = 1 + -(-4 * span // (3 * length))
    starts = [place * span // max(count - 1, 1) for place in range(count)]
    if width >= height:
        return [(start, 0, start + length, height) for start in starts]
    return [(0, start, width, start + length) for start in starts]


def cut_tiles(decoded: Decoded, tiles: Tiles) -> list[Decoded]:
    """The tiles of an image, as `plan_tiles` places them in the whole picture."""
    boxes = plan_tiles(decoded.size, tiles.aspect, tiles.most)
    return [cut_box(decoded, box) for box in boxes] if len(boxes) > 1 else [decoded]


def merge_tiles(scores: NDArray[np.float32], counts: Sequence[int], merge: Merge) -> NDArray[np.float32]:
    """From scores of tiles, (tiles, labels), to scores of images, (images, labels); `counts`: tiles of each, 1 or more.

    By the mean, or by the maximum of each label.
    """
    starts = np.cumsum([0, *counts[:-1]])
    if merge == "maximum":
        return np.maximum.reduceat(scores, starts)
    means = np.add.reduceat(scores, starts) / np.array(counts)[:, None]
    return np.asarray(means, np.float32)
