"""Transparency and samples of more than 8 bits, against the values that the standards of the formats give."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.images.colours import scale_values
from inference.images.read import read_image


def write_png(path: Path, depth: int, colour: int, row: bytes, width: int, transparent: Sequence[int]) -> Path:
    """Write a PNG of one row with a transparent colour (PNG 3, sections 11.2.1 and 11.3.1.1)."""
    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    key = struct.pack(f">{len(transparent)}H", *transparent)
    chunks = [b"IHDR" + head, b"tRNS" + key, b"IDAT" + zlib.compress(b"\0" + row), b"IEND"]
    body = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))
    return path


# Depth in bits, colour type, stored row, width, transparent colour, wanted red values
TRANSPARENT: list[tuple[int, int, bytes, int, Sequence[int], list[int]]] = [
    (1, 0, b"\x40", 2, [0], [255, 255]),
    (2, 0, b"\x1b", 4, [1], [0, 255, 170, 255]),
    (4, 0, b"\x01\x2f", 4, [2], [0, 17, 255, 255]),
    (8, 0, b"\x00\x55\xaa", 3, [0x55], [0, 255, 170]),
    (16, 0, struct.pack(">4H", 0, 0x5501, 0x5502, 0xFFFF), 4, [0x5501], [0, 255, 85, 255]),
    (16, 0, struct.pack(">3H", 0, 0x800, 0xFFF), 3, [0xFFF], [0, 128, 255]),
    (8, 2, b"\x11\x22\x33\x10\x22\x33", 2, [0x11, 0x22, 0x33], [255, 16]),
    (16, 2, struct.pack(">6H", 0x1101, 0x2202, 0x3303, 0x1001, 0x2202, 0x3303), 2, [0x1101, 0x2202, 0x3303], [255, 16]),
]


@pytest.mark.parametrize(("depth", "colour", "row", "width", "transparent", "wanted"), TRANSPARENT)
def test_the_transparent_colour_of_a_png_becomes_white_at_any_depth(
    depth: int, colour: int, row: bytes, width: int, transparent: Sequence[int], wanted: list[int], tmp_path: Path
) -> None:
    path = write_png(tmp_path / "x.png", depth, colour, row, width, transparent)
    assert np.asarray(read_image(path))[0, :, 0].tolist() == wanted


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([0, 255, 256, 0x8000, 0xFFFF], np.uint16), [0, 0, 1, 128, 255]),
        (np.array([0, 15, 16, 2048, 4095], np.uint16), [0, 0, 1, 128, 255]),
        (np.array([0, 16, 4096], np.uint16), [0, 0, 16]),
        (np.array([0, 7, 255], np.uint8), [0, 7, 255]),
        (np.array([0, 1 << 24, (1 << 32) - 1], np.uint32), [0, 1, 255]),
        (np.array([0, 0.25, 0.5, 1], np.float32), [0, 64, 128, 255]),
        (np.array([-1, np.nan, 1]), [0, 0, 255]),
        (np.array([0, 0.5, 1.5, 99.5, 300]), [0, 0, 1, 99, 255]),
        (np.array([-np.inf, np.nan, 2, np.inf], np.float16), [0, 0, 2, 255]),
        (np.array([-1e38, 1.0], np.float32), [0, 255]),
        (np.array([], np.float32), []),
    ],
    ids=str,
)
def test_samples_are_scaled_to_their_range(values: np.ndarray, wanted: list[int]) -> None:
    scaled = scale_values(values)
    assert scaled.dtype == np.uint8 and scaled.tolist() == wanted


def test_floats_and_12_bits_look_as_their_8_bit_originals(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray((ramp / 255).astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(ramp.astype(np.uint16) * 16).save(tmp_path / "twelve.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    for name in ("float.tif", "twelve.png", "sixteen.png"):
        assert np.array_equal(np.asarray(read_image(tmp_path / name))[..., 0], ramp), name


@pytest.mark.parametrize("transparency", [None, 1])
def test_a_gif_is_white_outside_its_first_frame(transparency: int | None, tmp_path: Path) -> None:
    """The canvas is 4x3; the frame of 2x1 at (1, 1) has the colours 0, red, and 1, which may be transparent."""
    extension = b"" if transparency is None else b"!\xf9\x04\x01\0\0" + bytes([transparency]) + b"\0"
    screen = b"GIF89a" + struct.pack("<HHBBB", 4, 3, 0x80, 0, 0) + bytes([255, 0, 0, 0, 0, 255])
    # LZW with codes of 3 bits: clear (4), 0, 1, end (5).
    codes = 4 | 0 << 3 | 1 << 6 | 5 << 9
    frame = b"," + struct.pack("<HHHHB", 1, 1, 2, 1, 0) + b"\x02\x02" + struct.pack("<H", codes) + b"\0;"
    (tmp_path / "x.gif").write_bytes(screen + extension + frame)
    white, red = [255, 255, 255], [255, 0, 0]
    second = white if transparency else [0, 0, 255]
    found = np.asarray(read_image(tmp_path / "x.gif")).tolist()
    assert found == [[white] * 4, [white, red, second, white], [white] * 4]
