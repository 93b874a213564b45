"""Conversion of pixels of any mode to RGB of 8 bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

# Of a PNG's stored grey values, to what Pillow makes of them; it leaves the transparent value as it is stored.
GREY_FACTORS = {"L;2": 85, "L;4": 17}
TWELVE_BITS = 1 << 12


def adapt_transparency(image: ImageFile) -> None:
    """Scale the transparent colour of a PNG, opened but not loaded, as Pillow scales the pixels."""
    transparent = image.info.get("transparency")
    if image.format != "PNG" or transparent is None or not image.tile:
        return
    raw_mode = image.tile[0][3]
    if raw_mode in GREY_FACTORS:
        image.info["transparency"] = transparent * GREY_FACTORS[raw_mode]
    elif raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to a new image of mode RGB. Transparent pixels become white; more bits are scaled, see `scale_values`.

    In RGB of 16 bits, pixels with the high bytes of the transparent colour are transparent.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image)
        grey = scale_values(values.clip(0, 0xFFFF).astype(np.uint16))
        if (transparent := image.info.get("transparency")) is not None:
            grey[values == transparent] = 255
        image = Image.fromarray(grey)
    elif image.mode == "F":
        image = Image.fromarray(scale_values(np.asarray(image)))
    elif image.has_transparency_data:
        upper = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper)
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def scale_values(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale unsigned integers or floats to 0 to 255.

    Integers keep their high byte. Those of 16 bits whose largest is below 4096 count as 12 bits, which cameras and
    scanners store in files of 16. Floats are cut to 0 to 255, but if the largest is at most 1, then 1 becomes 255. NaN
    becomes 0.
    """
    if values.dtype.kind == "u":
        bits = 8 * values.dtype.itemsize
        if bits == 16 and values.max(initial=0) < TWELVE_BITS:
            bits = 12
        return (values >> (bits - 8)).astype(np.uint8)
    values = np.nan_to_num(values.clip(0, 255))
    if values.max(initial=0) <= 1:
        values = values * 255 + 0.5
    return values.astype(np.uint8)


def whiten_outside(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Make the pixels outside a box white: left, top, right, bottom; px."""
    if box == (0, 0, *image.size):
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image.crop(box), box)
    return white
