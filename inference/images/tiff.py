"""Reading of TIFF files that Pillow cannot open: RGB of floats or of 32-bit integers, halves and doubles, and WebP."""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from inference.images.colours import scale_values

# Tags and values of TIFF 6.0 and its supplements; WebP is 50001 in libtiff.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 274, 277
STRIPS, ROWS, STRIP_BYTES, PLANAR, PREDICTOR = 273, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339
COPIES = 5  # of the pixels in memory: decompressed, assembled, as floats, scaled, as bytes
NO_COMPRESSION, WEBP = 1, 50001
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
TYPES = {1: "u", 3: "f"}  # of SampleFormat
SIZES = {8, 16, 32, 64}  # of samples, bits
MOST_SAMPLES = 8


@dataclass(frozen=True)
class _Layout:
    """How a TIFF file stores its pixels, in blocks: strips or tiles."""

    width: int
    height: int
    block: tuple[int, int]
    """Height and width of a block, px; the last strip is lower."""
    tiled: bool
    places: list[tuple[int, int]]
    """Offset in the file and length of each block, bytes."""
    samples: int
    """Per pixel."""
    separate: bool
    """Whether a block has one sample of each pixel, instead of all of them."""
    dtype: np.dtype[Any]
    compression: int
    predictor: int


def read_tiff(path: Path, check_size: Callable[[int, int, int], None]) -> tuple[Image.Image, int]:
    """Read the first image of a TIFF file as mode L, RGB, LA or RGBA, as it is stored; return its orientation too.

    `check_size` gets width, height and needed bytes per pixel before anything is decoded, and raises an error to refuse
    them; also those of a tile, which may be larger. Raises ValueError: the pixels are of another kind; and other errors
    for a broken file.
    """
    with path.open("rb") as file:
        tags = _read_tags(file)
        layout = _plan(tags)
        for height, width in ((layout.height, layout.width), layout.block):
            check_size(width, height, COPIES * layout.samples * layout.dtype.itemsize)
        colours = 3 if tags.get(PHOTOMETRIC) == RGB else 1
        extra = _list(tags, EXTRA)
        alpha = bool(extra) and extra[0] in (1, 2) and layout.samples > colours
        if tags.get(PHOTOMETRIC) not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or layout.samples < colours:
            raise ValueError("found neither grey nor RGB")
        pixels = _assemble(file, layout)[..., : colours + alpha]
    values = scale_values(pixels[..., :colours])
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 255 - values
    if alpha:
        values = np.concatenate([values, scale_values(pixels[..., colours:])], axis=2)
    return Image.fromarray(values if values.shape[2] > 1 else values[..., 0]), int(tags.get(ORIENTATION, 1))


def _read_tags(file: io.BufferedReader) -> TiffImagePlugin.ImageFileDirectory_v2:
    head = file.read(8)
    head += file.read(8) if head[2:3] == b"+" or head[3:4] == b"+" else b""
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _list(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> list[int]:
    value = tags.get(tag, ())
    return [int(number) for number in (value if isinstance(value, tuple) else (value,))]


def _plan(tags: TiffImagePlugin.ImageFileDirectory_v2) -> _Layout:
    width, height, samples = int(tags[WIDTH]), int(tags[HEIGHT]), int(tags.get(SAMPLES, 1))
    bits, formats = set(_list(tags, BITS)), set(_list(tags, FORMAT) or [1])
    if len(bits) != 1 or len(formats) != 1 or not (bits <= SIZES and formats <= TYPES.keys()):
        raise ValueError("found samples of several types or of an unknown one")
    if min(width, height) < 1 or not 1 <= samples <= MOST_SAMPLES:
        raise ValueError(f"found {width}x{height} pixels of {samples} samples")
    order = "<" if tags.prefix == b"II" else ">"
    dtype = np.dtype(f"{order}{TYPES[formats.pop()]}{bits.pop() // 8}")
    tiled = TILES in tags
    block = (int(tags[TILE_HEIGHT]), int(tags[TILE_WIDTH])) if tiled else (int(tags.get(ROWS, height)), width)
    places = _list(tags, TILES if tiled else STRIPS), _list(tags, TILE_BYTES if tiled else STRIP_BYTES)
    return _Layout(
        width=width,
        height=height,
        block=block if tiled else (min(block[0], height), width),
        tiled=tiled,
        places=list(zip(*places, strict=True)),
        samples=samples,
        separate=samples > 1 and tags.get(PLANAR, 1) == 2,
        dtype=dtype,
        compression=int(tags.get(COMPRESSION, 1)),
        predictor=int(tags.get(PREDICTOR, 1)),
    )


def _assemble(file: io.BufferedReader, layout: _Layout) -> NDArray[Any]:
    """Decode all blocks, (height, width, samples)."""
    pixels = np.zeros((layout.height, layout.width, layout.samples), layout.dtype.newbyteorder("="))
    for (offset, length), (plane, top, left) in zip(layout.places, _list_corners(layout), strict=True):
        file.seek(offset)
        block = _decode_block(file.read(length), layout, min(layout.block[0], layout.height - top))
        part = pixels[top : top + layout.block[0], left : left + layout.block[1], plane]
        part[...] = block[: part.shape[0], : part.shape[1]]
    return pixels


def _list_corners(layout: _Layout) -> Iterator[tuple[slice, int, int]]:
    """Yield the samples of each block, and its top and left."""
    planes = [slice(plane, plane + 1) for plane in range(layout.samples)] if layout.separate else [slice(None)]
    for plane in planes:
        for top in range(0, layout.height, layout.block[0]):
            for left in range(0, layout.width, layout.block[1]):
                yield plane, top, left


def _decode_block(content: bytes, layout: _Layout, rows: int) -> NDArray[Any]:
    """Decode a block, (rows, width, samples)."""
    samples = 1 if layout.separate else layout.samples
    height, width = layout.block[0] if layout.tiled else rows, layout.block[1]
    if layout.compression == WEBP:
        return _decode_webp(content, (width, height), samples)
    row_bytes = width * samples * layout.dtype.itemsize
    if layout.compression != NO_COMPRESSION:
        content = _decompress(content, layout.compression, row_bytes, height)
    values = np.frombuffer(content, np.uint8, height * row_bytes)
    if layout.predictor == 3:  # Adobe Photoshop TIFF Technical Note 3: differences of bytes, sorted by significance
        lanes = values.reshape(height, -1, samples).cumsum(axis=1, dtype=np.uint8)
        lanes = lanes.reshape(height, layout.dtype.itemsize, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(lanes).view(layout.dtype.newbyteorder(">")).reshape(height, width, samples)
    if layout.predictor == 2:  # TIFF 6.0, section 14: differences of numbers, also of the bits of floats
        integers = values.view(layout.dtype.str.replace("f", "u")).reshape(height, width, samples)
        return integers.cumsum(axis=1, dtype=integers.dtype.newbyteorder("=")).view(layout.dtype.newbyteorder("="))
    return values.view(layout.dtype).reshape(height, width, samples)


def _decode_webp(content: bytes, size: tuple[int, int], samples: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
        if image.size != size or samples not in (3, 4):
            raise ValueError(f"found a WebP of {image.size} in a block of {size}")
        return np.asarray(image.convert("RGB" if samples == 3 else "RGBA"))


def _decompress(content: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """Undo a compression with libtiff, as that of a grey image of one strip, whose pixels are the bytes."""
    entries = {WIDTH: row_bytes, HEIGHT: rows, BITS: 8, COMPRESSION: compression, PHOTOMETRIC: BLACK_IS_ZERO}
    entries |= {STRIPS: 8, SAMPLES: 1, ROWS: rows, STRIP_BYTES: len(content)}
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries)) + bytes(4)
    content += bytes(len(content) % 2)  # the directory begins at an even offset
    with Image.open(
        io.BytesIO(struct.pack("<2sHI", b"II", 42, 8 + len(content)) + content + directory), formats=["TIFF"]
    ) as image:
        return image.tobytes()
