"""Tiles: a long image is cut along its long side, and a model sees each tile instead of the whole image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.basics.logarithms import take_logarithms
from inference.manifest.model import Tiles
from inference.manifest.values import Merge

Box = tuple[int, int, int, int]  # left, top, right, bottom; px
Region = tuple[float, float, float, float]  # the same, with fractions of a pixel


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image, possibly decoded at reduced size."""

    image: Image.Image
    size: tuple[int, int]
    """Width and height at full size, px."""
    region: Region
    """The part of `image` inside the edges, in px of `image`: half of 427 px is 213.5, but libjpeg decodes 214."""
    note: str = ""
    """What is missing from a damaged file; empty for a good one."""


def place_picture(stored: tuple[int, int], reduction: int, orientation: int) -> tuple[tuple[int, int], Region]:
    """Return `size` and `region` of Decoded for a file, after it is made upright.

    `stored`: width and height in the file; `reduction`: 1, 2, 4 or 8; `orientation`: of EXIF, 1 to 8.
    """
    width, height = stored[::-1] if orientation >= 5 else stored
    across, down = width / reduction, height / reduction
    # The partial pixels are at the file's right and bottom edges, which may have become the left and the top.
    left = math.ceil(across) - across if orientation in (2, 3, 6, 7) else 0.0
    top = math.ceil(down) - down if orientation in (3, 4, 7, 8) else 0.0
    return (width, height), (left, top, left + across, top + down)


def cut_box(decoded: Decoded, box: Box) -> Decoded:
    """Cut out a box, in px at full size."""
    left, top, right, bottom = decoded.region
    across, down = (right - left) / decoded.size[0], (bottom - top) / decoded.size[1]
    region = (left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down)
    corner = (math.floor(region[0]), math.floor(region[1]))
    image = decoded.image.crop((*corner, math.ceil(region[2]), math.ceil(region[3])))
    within = (region[0] - corner[0], region[1] - corner[1], region[2] - corner[0], region[3] - corner[1])
    return Decoded(image, (box[2] - box[0], box[3] - box[1]), within)


def plan_tiles(size: tuple[int, int], aspect: float, most: int) -> list[Box]:
    """Return the boxes of the tiles of an image of `size` (width, height), or of the whole image if it is not long.

    `aspect`, `most`: those of the manifest's Tiles. The tiles are squares of the short side, evenly spaced from end to
    end. Neighbours overlap by at least a quarter, so that few objects are cut in two. If `most` squares do not cover
    the image, the tiles are longer than squares.
    """
    width, height = size
    short, long = sorted(size)
    if long <= aspect * short:
        return [(0, 0, width, height)]
    # `most` tiles at distances of three quarters of their length cover (3 most + 1) / 4 lengths.
    length = max(short, -(-4 * long // (3 * most + 1)))
    span = long - length
    count = 1 + -(-4 * span // (3 * length))
    starts = [place * span // max(count - 1, 1) for place in range(count)]
    if width >= height:
        return [(start, 0, start + length, height) for start in starts]
    return [(0, start, width, start + length) for start in starts]


def cut_tiles(decoded: Decoded, tiles: Tiles) -> list[Decoded]:
    """Cut an image into the tiles of `plan_tiles`."""
    boxes = plan_tiles(decoded.size, tiles.aspect, tiles.most)
    return [cut_box(decoded, box) for box in boxes] if len(boxes) > 1 else [decoded]


def merge_tiles(scores: NDArray[np.float32], counts: Sequence[int], merge: Merge) -> NDArray[np.float32]:
    """Combine scores of tiles, (tiles, labels), to scores of images, (images, labels), per label.

    `counts`: number of tiles of each image, at least 1. `geometric` is the mean of logarithms.
    """
    if merge == "geometric":
        return np.exp(merge_tiles(take_logarithms(scores), counts, "mean"))
    starts = np.cumsum([0, *counts[:-1]])
    if merge == "maximum":
        return np.maximum.reduceat(scores, starts)
    means = np.add.reduceat(scores, starts) / np.array(counts)[:, None]
    return np.asarray(means, np.float32)
