"""A picture as it was decoded: whole, or of a JPEG, with a half, a quarter or an eighth of its pixels a side."""

import math
from dataclasses import dataclass

from PIL import Image

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
