"""Reading of image files as upright RGB and as the square inputs of models."""

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
from inference.images.geometry import Draft, Geometry, choose_reduction, show_image
from inference.images.tiles import Decoded, place_picture
from inference.images.traits import measure_traits
from inference.manifest.records import MAX_PIXELS

# Peak while an image is read: as stored, as RGBA, composed with white, and as RGB, for which Pillow uses four bytes.
BYTES_PER_PIXEL = 20
LARGE_PIXELS = 1_000_000  # free memory is checked only for images with more
REFUSED_FORMATS = {"EPS": "Pillow reads it with another program", "ICNS": "its header does not give its size"}
# Pillow's decoder holds the interpreter lock for 1.4 microseconds per pixel, so no time limit can interrupt it.
MAX_JPEG2000_PIXELS = 4_000_000
ORIENTATION_TAG = 0x0112
# The inverse of each orientation in EXIF 2.3, table 6.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns above a limit of its own; here `max_pixels` decides.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a file of any format of Pillow as an upright RGB image; of several frames, the first.

    Transparent pixels become white; 16-bit greys keep their high byte. Raises ImageError naming the file;
    ImageMemoryError: out of memory. An image with more than `max_pixels`, or too large for the free memory, is refused
    before it is decoded.
    """
    return decode_image(path, max_pixels).image


def decode_image(path: Path, max_pixels: int = MAX_PIXELS, draft: Draft | None = None) -> Decoded:
    """Read as `read_image` does, but decode a JPEG at the size that `draft` allows."""
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
    except Exception as error:  # decoders raise at least nine types; one image must not end the run
        raise _describe(error, path) from error


@dataclass(frozen=True)
class Picture:
    """An image as input of the models and the second stage."""

    squares: Mapping[Geometry, NDArray[np.uint8]]
    """(size, size, 3), or (tiles, size, size, 3) for a geometry with tiles."""
    traits: NDArray[np.float32]
    """See inference/images/traits.py."""


def read_picture(
    path: Path, geometries: Iterable[Geometry], max_pixels: int = MAX_PIXELS, draft: Draft | None = None
) -> Picture:
    """Decode a file once; return its squares for the geometries and its traits. Raises ImageError naming the file.

    A JPEG is decoded at the size that `draft` allows.
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
    """Return `Picture.squares` of `read_picture`."""
    return read_picture(path, geometries, max_pixels, draft).squares


def _describe(error: Exception, path: Path) -> ImageError:
    reason = " ".join(str(error).split()) or "no reason given"
    message = f"{type(error).__name__}: {reason.replace(str(path), path.name)}"
    # Pillow's own error for it is an OSError without a number.
    short = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or "out of memory" in reason
    return ImageMemoryError(f"{path.name}: {NO_MEMORY}: {message}") if short else ImageError(f"{path.name}: {message}")


def _check_regular(path: Path) -> None:
    """Refuse pipes and devices, whose reading might never end; links are followed."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ImageError(f"found {'a folder' if stat.S_ISDIR(mode) else 'a pipe or device'}; wanted a file")


def _check_header(image: Image.Image, max_pixels: int) -> None:
    if image.format in REFUSED_FORMATS:
        raise ImageError(f"found {image.format}; wanted a format such as PNG: {REFUSED_FORMATS[image.format]}")
    width, height = image.size
    limit, key = max_pixels, "`runtime.max_pixels`"
    if image.format == "JPEG2000" and limit > MAX_JPEG2000_PIXELS:
        limit, key = MAX_JPEG2000_PIXELS, "for JPEG 2000"
    if width * height > limit:
        raise ImageError(f"found {width}x{height} = {width * height} pixels; wanted at most {limit} ({key})")
    # One image that takes all memory makes other reads fail, and C code may end the process if an allocation fails.
    needed = width * height * BYTES_PER_PIXEL
    if width * height > LARGE_PIXELS and needed > (free := measure_free()):
        reason = f"{width}x{height} pixels need {needed / 1e6:.0f} MB; {free / 1e6:.0f} MB are free"
        raise ImageMemoryError(f"{NO_MEMORY}: {reason}")


def _reduce(image: Image.Image, draft: Draft) -> int:
    """Make Pillow decode a JPEG at reduced size if allowed; return the reduction, 1 for none."""
    # A JPEG without quantization tables is lossless; libjpeg cannot reduce it.
    if not isinstance(image, JpegImageFile) or not image.quantization:
        return 1
    reduction = choose_reduction(image.size, draft)
    if reduction > 1:
        image.draft(None, (image.width // reduction, image.height // reduction))
    return reduction


def _read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 if it is missing or invalid."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
        return orientation if orientation in UPRIGHT else 1
    except Exception:  # the pixels may be valid although the EXIF block is broken
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
