"""Image files: find them, read any of them as upright RGB, bring them to a model's square."""

import errno
import stat
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from inference.basics.errors import ImageError, ImageMemoryError
from inference.basics.memory import NO_MEMORY, measure_free
from inference.images.geometry import (
    Draft,
    Geometry,
    choose_reduction,
    show_image,
)
from inference.images.tiles import Decoded, place_picture
from inference.images.traits import measure_traits
from inference.manifest.records import MAX_PIXELS

# Of an image while it is read: as it is stored, with and over white, and as RGB, which Pillow keeps in four bytes.
BYTES_A_PIXEL = 20
LARGE_PIXELS = 1_000_000  # only from here on is memory asked for beforehand
REFUSED_FORMATS = {"EPS": "another program would read it", "ICNS": "its header does not say how large it is"}
# Pillow's decoder holds the interpreter's lock, 1.4 microseconds a pixel, so that no time limit can act.
MAX_JPEG2000_PIXELS = 4_000_000
ORIENTATION_TAG = 0x0112
# EXIF 2.3, table 6: what undoes each orientation.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Pillow warns from its own limit on; here `max_pixels` decides.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright RGB image from a file of any kind that Pillow reads; of several frames, the first.

    Transparent pixels become white, 16-bit greys keep their high byte. Raises ImageError naming the file, and of these
    ImageMemoryError where memory is short; one of more than `max_pixels`, or than a limit of memory leaves room for, is
    refused before a pixel of it is decoded.
    """
    return decode_image(path, max_pixels).image


def decode_image(path: Path, max_pixels: int = MAX_PIXELS, draft: Draft | None = None) -> Decoded:
    """As `read_image`; a JPEG is decoded reduced as far as `draft` allows."""
    try:
        _check_regular(path)
        with Image.open(path) as image:
            _check_header(image, max_pixels)
            size, reduction = image.size, _reduce(image, draft) if draft else 1
            image.load()
            orientation = _read_orientation(image)
            upright = image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
            return Decoded(_to_rgb(upright), *place_picture(size, reduction, orientation))
    except ImageError as error:
        raise type(error)(f"{path.name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path.name}: {error}; wanted at most {max_pixels} (`runtime.max_pixels`)") from error
    except Exception as error:  # decoders raise nine types at least; one image must not cost the run
        raise _describe(error, path) from error


@dataclass(frozen=True)
class Picture:
    """An image as the models and the second stage look at it: its squares, and its traits (inference/images/traits.py).

    `squares`: (size, size, 3) of uint8, or (tiles, size, size, 3) of a geometry with tiles.
    """

    squares: Mapping[Geometry, NDArray[np.uint8]]
    traits: NDArray[np.float32]


def read_picture(
    path: Path, geometries: Iterable[Geometry], max_pixels: int = MAX_PIXELS, draft: Draft | None = None
) -> Picture:
    """One file, decoded once, as the square of each geometry, and its traits; raises ImageError naming the file.

    A JPEG is decoded reduced as far as `draft` allows.
    """
    decoded = decode_image(path, max_pixels, draft)
    try:
        squares = {geometry: show_image(decoded, geometry) for geometry in geometries}
        return Picture(squares, measure_traits(decoded.image, decoded.size))
    except ImageError as error:
        raise ImageError(f"{path.name}: {error}") from error
    except MemoryError as error:
        raise _describe(error, path) from error


def read_squares(
    path: Path, geometries: Iterable[Geometry], max_pixels: int = MAX_PIXELS, draft: Draft | None = None
) -> Mapping[Geometry, NDArray[np.uint8]]:
    """The squares of `read_picture`, as `Picture` has them."""
    return read_picture(path, geometries, max_pixels, draft).squares


def _describe(error: Exception, path: Path) -> ImageError:
    reason = " ".join(str(error).split()) or "no reason given"
    told = f"{type(error).__name__}: {reason.replace(str(path), path.name)}"
    # Pillow's own code for it is an OSError without a number.
    short = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or "out of memory" in reason
    return ImageMemoryError(f"{path.name}: {NO_MEMORY}: {told}") if short else ImageError(f"{path.name}: {told}")


def _check_regular(path: Path) -> None:
    """A pipe or a device would be read for ever; a link counts as what it leads to."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ImageError(f"found {'a folder' if stat.S_ISDIR(mode) else 'a pipe or device'}; wanted a file")


def _check_header(image: Image.Image, max_pixels: int) -> None:
    if image.format in REFUSED_FORMATS:
        raise ImageError(f"found {image.format}; wanted a format such as PNG: {REFUSED_FORMATS[image.format]}")
    width, height = image.size
    limit, key = max_pixels, "`runtime.max_pixels`"
    if image.format == "JPEG2000" and limit > MAX_JPEG2000_PIXELS:
        limit, key = MAX_JPEG2000_PIXELS, "of JPEG 2000"
    if width * height > limit:
        raise ImageError(f"{width}x{height} is {width * height} pixels; wanted at most {limit} ({key})")
    # Others fail too where one takes all that there is, and C code that fails to get a few bytes may end the process.
    needed = width * height * BYTES_A_PIXEL
    if width * height > LARGE_PIXELS and needed > (free := measure_free()):
        told = f"{width}x{height} pixels take {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are left"
        raise ImageMemoryError(f"{NO_MEMORY}: {told}")


def _reduce(image: Image.Image, draft: Draft) -> int:
    """Have a JPEG decoded reduced where that is allowed; the reduction, 1 for none."""
    # Without tables of quantization it is a lossless JPEG, which libjpeg does not reduce.
    if not isinstance(image, JpegImageFile) or not image.quantization:
        return 1
    reduction = choose_reduction(image.size, draft)
    if reduction > 1:
        image.draft(None, (image.width // reduction, image.height // reduction))
    return reduction


def _read_orientation(image: Image.Image) -> int:
    """As EXIF numbers it, 1 where nothing sensible is told."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
        return orientation if orientation in UPRIGHT else 1
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 0xFFFF) >> 8).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.nan_to_num(np.asarray(image)).clip(0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        upper = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper)
    return image.copy() if image.mode == "RGB" else image.convert("RGB")
