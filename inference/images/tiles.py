"""Tiles: where an image is long, a model looks at squares along its long side instead of at one square of the whole."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.manifest.records import Tiles
from inference.manifest.values import Merge

Box = tuple[int, int, int, int]  # left, top, right, bottom; px
Region = tuple[float, float, float, float]  # the same, with parts of a pixel


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image, and which picture it stands for.

    `size`: width and height of the whole picture, px. `region`: where the picture lies in `image`, in px of that one.
    Reduced, it may end within a pixel: half of 427 px is 213.5, and libjpeg decodes 214.
    """

    image: Image.Image
    size: tuple[int, int]
    region: Region


def place_picture(stored: tuple[int, int], reduction: int, orientation: int) -> tuple[tuple[int, int], Region]:
    """Size and region, as Decoded has them, of a file's picture once it is upright.

    `stored`: width and height in the file; `reduction`: 1, 2, 4 or 8; `orientation`: as EXIF numbers it, 1 to 8.
    """
    width, height = stored[::-1] if orientation >= 5 else stored
    across, down = width / reduction, height / reduction
    # The file's right and bottom edges, where a part of a pixel is over, may have become the left and the top.
    left = math.ceil(across) - across if orientation in (2, 3, 6, 7) else 0.0
    top = math.ceil(down) - down if orientation in (3, 4, 7, 8) else 0.0
    return (width, height), (left, top, left + across, top + down)


def cut_box(decoded: Decoded, box: Box) -> Decoded:
    """A part of a picture; `box`: in px of the whole picture."""
    left, top, right, bottom = decoded.region
    across, down = (right - left) / decoded.size[0], (bottom - top) / decoded.size[1]
    region = (left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down)
    corner = (math.floor(region[0]), math.floor(region[1]))
    image = decoded.image.crop((*corner, math.ceil(region[2]), math.ceil(region[3])))
    within = (region[0] - corner[0], region[1] - corner[1], region[2] - corner[0], region[3] - corner[1])
    return Decoded(image, (box[2] - box[0], box[3] - box[1]), within)


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
