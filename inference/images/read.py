"""Reading of image files as upright RGB and as the inputs of models."""

import errno
import io
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from inference.basics.errors import ImageError, ImageMemoryError
from inference.basics.memory import NO_MEMORY, measure_free
from inference.images.colours import adapt_transparency, to_rgb, whiten_outside
from inference.images.formats import FORMATS, describe_unknown, name_kind, open_image
from inference.images.geometry import Draft, Geometry, choose_reduction, show_image
from inference.images.repair import DAMAGED, accept_damage, is_blank, keep_pixels
from inference.images.tiff import read_tiff
from inference.images.tiles import Decoded, place_picture
from inference.images.traits import measure_traits
from inference.manifest.records import MAX_PIXELS

# Peak while an image is read: as stored, as RGBA, composed with white, and as RGB, for which Pillow uses four bytes.
BYTES_PER_PIXEL = 20
LARGE_PIXELS = 1_000_000  # free memory is checked only for images with more
# Pillow's decoder holds the interpreter lock for 1.4 microseconds per pixel, so neither the time limit per image nor
# the deadline interrupts it: the largest image may delay them by 28 s, which the reserve of a run covers.
MAX_JPEG2000_PIXELS = 20_000_000
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


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a file of one of FORMATS as an upright RGB image; of several frames, the first.

    Transparent pixels become white; greys of 16 bits and floats are scaled, see inference/images/colours.py. A damaged
    file is decoded as far as possible. Raises ImageError naming the file; ImageMemoryError: out of memory. An image
    with more than `max_pixels`, or too large for the free memory, is refused before it is decoded.
    """
    return decode_image(path, max_pixels).image


def decode_image(path: Path, max_pixels: int = MAX_PIXELS, draft: Draft | None = None) -> Decoded:
    """Read as `read_image` does, but decode a good JPEG at the size that `draft` allows; `note` tells of damage."""
    try:
        _check_regular(path)
        try:
            return _decode(path, max_pixels, draft)
        except Exception as error:  # decoders raise at least nine types
            decoded = None if _is_final(error, path) else _decode_again(path, max_pixels)
            if decoded is None:
                raise
            return decoded
    except ImageError as error:
        raise type(error)(f"{path.name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path.name}: {error}; wanted at most {max_pixels} (`runtime.max_pixels`)") from error
    except Exception as error:  # one image must not end the run
        raise _describe(error, path) from error


@dataclass(frozen=True)
class Picture:
    """An image as input of the models and the second stage."""

    squares: Mapping[Geometry, NDArray[np.uint8]]
    """(height, width, 3) of `Geometry.shape`, or (tiles, height, width, 3) for a geometry with tiles."""
    traits: NDArray[np.float32]
    """See inference/images/traits.py."""
    note: str = ""
    """What is missing from a damaged file; empty for a good one."""


def read_picture(
    path: Path, geometries: Iterable[Geometry], max_pixels: int = MAX_PIXELS, draft: Draft | None = None
) -> Picture:
    """Decode a file once; return its squares for the geometries and its traits. Raises ImageError naming the file.

    A JPEG is decoded at the size that `draft` allows.
    """
    decoded = decode_image(path, max_pixels, draft)
    try:
        squares = {geometry: show_image(decoded, geometry) for geometry in geometries}
        return Picture(squares, measure_traits(decoded.image, decoded.size), decoded.note)
    except ImageError as error:
        raise ImageError(f"{path.name}: {error}") from error
    except MemoryError as error:
        raise _describe(error, path) from error


def read_squares(
    path: Path, geometries: Iterable[Geometry], max_pixels: int = MAX_PIXELS, draft: Draft | None = None
) -> Mapping[Geometry, NDArray[np.uint8]]:
    """Return `Picture.squares` of `read_picture`."""
    return read_picture(path, geometries, max_pixels, draft).squares


def _decode(source: Path | io.BytesIO, max_pixels: int, draft: Draft | None) -> Decoded:
    with open_image(source) as image:
        _check_header(image, max_pixels)
        size, reduction = image.size, _reduce(image, draft) if draft else 1
        adapt_transparency(image)
        # A GIF's first frame may be smaller than the image; Pillow fills the rest with a colour.
        frame = image.tile[0][1] if image.format == "GIF" and image.tile else None
        image.load()
        orientation = _read_orientation(image)
        upright = image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
        return Decoded(_to_rgb(upright, frame), *place_picture(size, reduction, orientation))


def _decode_again(path: Path, max_pixels: int) -> Decoded | None:
    """Decode a file that Pillow failed on in other ways, from the strictest to the most tolerant; None if all fail."""
    kind = name_kind(path)
    source = keep_pixels(path) if kind == "PNG" else path
    # At full size, so that a draft does not change which part of a damaged JPEG is decoded.
    decode = partial(_decode, source, max_pixels, None)
    if kind == "PNG" and (decoded := _attempt(decode, path)):
        return decoded
    if kind == "TIFF" and (decoded := _attempt(partial(_decode_tiff, path, max_pixels), path)):
        return decoded
    with accept_damage():
        decoded = _attempt(decode, path)
    return replace(decoded, note=DAMAGED) if decoded and not is_blank(decoded.image) else None


def _decode_tiff(path: Path, max_pixels: int) -> Decoded:
    image, orientation = read_tiff(path, partial(_check_size, limit=max_pixels))
    upright = image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
    return Decoded(to_rgb(upright), *place_picture(image.size, 1, orientation))


def _attempt(decode: Callable[[], Decoded], path: Path) -> Decoded | None:
    try:
        return decode()
    except Exception as error:
        if _is_final(error, path):
            raise
        return None


def _is_final(error: Exception, path: Path) -> bool:
    """Return whether no other way of reading can help: a limit, memory, or no image."""
    if isinstance(error, UnidentifiedImageError):
        return name_kind(path) not in FORMATS
    return isinstance(error, ImageError | Image.DecompressionBombError | FileNotFoundError) or _is_memory(error)


def _is_memory(error: Exception) -> bool:
    # Pillow's own error for it is an OSError without a number.
    short = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    return short or "out of memory" in str(error)


def _describe(error: Exception, path: Path) -> ImageError:
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"{path.name}: {describe_unknown(path)}")
    reason = " ".join(str(error).split()) or "no reason given"
    message = f"{type(error).__name__}: {reason.replace(str(path), path.name)}"
    if _is_memory(error):
        return ImageMemoryError(f"{path.name}: {NO_MEMORY}: {message}")
    return ImageError(f"{path.name}: {message}")


def _check_regular(path: Path) -> None:
    """Refuse pipes and devices, whose reading might never end; links are followed."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ImageError(f"found {'a folder' if stat.S_ISDIR(mode) else 'a pipe or device'}; wanted a file")


def _check_header(image: ImageFile, max_pixels: int) -> None:
    if image.format == "JPEG2000" and max_pixels > MAX_JPEG2000_PIXELS:
        _check_size(*image.size, limit=MAX_JPEG2000_PIXELS, key="for JPEG 2000")
    _check_size(*image.size, limit=max_pixels)
    if isinstance(image, TiffImageFile):  # whole tiles are decoded, and may be larger than the image
        tile = image.tag_v2.get(TILEWIDTH, 1), image.tag_v2.get(TILELENGTH, 1)
        _check_size(*tile, limit=max_pixels, key="`runtime.max_pixels`, also in a tile of a TIFF")


def _check_size(
    width: int, height: int, bytes_per_pixel: int = BYTES_PER_PIXEL, *, limit: int, key: str = "`runtime.max_pixels`"
) -> None:
    pixels = width * height
    if pixels > limit:
        raise ImageError(f"found {width}x{height} = {pixels} pixels; wanted at most {limit} ({key})")
    # One image that takes all memory makes other reads fail, and C code may end the process if an allocation fails.
    needed = pixels * bytes_per_pixel
    if pixels > LARGE_PIXELS and needed > (free := measure_free()):
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


def _to_rgb(image: Image.Image, frame: tuple[int, int, int, int] | None) -> Image.Image:
    return whiten_outside(to_rgb(image), frame) if frame else to_rgb(image)
