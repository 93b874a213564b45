"""Traits: a few numbers of an image as input of the tree stacker."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TRAITS = ("brightness", "colourfulness", "longest side", "upright")
# Side in px below which an image is not reduced further: enough for means and deviations of colour.
GLANCE = 64


def measure_traits(image: Image.Image, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Measure the TRAITS of an upright RGB image, (4,).

    Brightness: mean luma (Rec. 601), 0 to 1. Colourfulness: 0 to about 180, by Hasler and Süsstrunk, Measuring
    Colourfulness in Natural Images, 2003. Longest side: px. Upright: 1 if the image is higher than wide, else 0. The
    first two are measured on a copy reduced by a whole number per axis, each pixel the mean of a box. `size`: width and
    height at full size, for an image decoded at reduced size.
    """
    width, height = image.size
    small = np.asarray(image.reduce((max(width // GLANCE, 1), max(height // GLANCE, 1))), np.float32)
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    brightness = (0.299 * red + 0.587 * green + 0.114 * blue).mean() / 255
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    colourfulness = np.hypot(red_green.std(), yellow_blue.std()) + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    width, height = size or image.size
    return np.array([brightness, colourfulness, max(width, height), height > width], np.float32)
