"""Unusual image files: each gives its right colours or one ImageError with the reason."""

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference.basics.errors import ImageError
from inference.images.geometry import Geometry
from inference.images.read import ORIENTATION_TAG, decode_image, read_image, read_squares
from inference.manifest.model import Resize
from inference.manifest.records import MAX_PIXELS
from tests.conftest import write_picture

Pixel = tuple[float, ...]


def over_white(grey: float, alpha: float) -> float:
    return grey * alpha / 255 + 255 - alpha


def cmyk(cyan: int, magenta: int, yellow: int, black: int) -> Pixel:
    return tuple((255 - ink) * (255 - black) / 255 for ink in (cyan, magenta, yellow))


def ycbcr(y: int, cb: int, cr: int) -> Pixel:
    """JFIF 1.02, page 4."""
    return y + 1.402 * (cr - 128), y - 0.34414 * (cb - 128) - 0.71414 * (cr - 128), y + 1.772 * (cb - 128)


def cielab(lightness: int, a: int, b: int) -> Pixel:
    """Convert bytes of Pillow's mode LAB (CIE 15, D50) to sRGB, X, Y, Z adapted by Bradford as in ICC profiles."""
    fy = (lightness / 2.55 + 16) / 116
    roots = np.array([fy + (a - 128) / 500, fy, fy - (b - 128) / 200])
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29)) * [0.96422, 1, 0.82521]
    to_srgb = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.033454],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.array(to_srgb) @ xyz
    return tuple(255 * np.where(linear > 0.0031308, 1.055 * linear.clip(0) ** (1 / 2.4) - 0.055, 12.92 * linear))


# mode, suffix, stored pixel, wanted RGB, tolerance
COLOURS: list[tuple[str, str, object, Pixel, float]] = [
    ("1", "png", 1, (255, 255, 255), 0),
    ("1", "png", 0, (0, 0, 0), 0),
    ("L", "png", 100, (100, 100, 100), 0),
    ("LA", "png", (100, 255), (100, 100, 100), 0),
    ("LA", "png", (100, 60), (over_white(100, 60),) * 3, 1),
    ("P", "png", 2, (70, 80, 90), 0),
    ("PA", "tiff", (2, 255), (70, 80, 90), 0),
    ("PA", "tiff", (2, 0), (255, 255, 255), 0),
    ("RGB", "png", (1, 20, 250), (1, 20, 250), 0),
    ("RGBA", "png", (10, 20, 30, 200), tuple(over_white(value, 200) for value in (10, 20, 30)), 1),
    ("CMYK", "tiff", (200, 100, 20, 60), cmyk(200, 100, 20, 60), 1),
    ("YCbCr", "tiff", (120, 100, 150), ycbcr(120, 100, 150), 1),
    ("LAB", "tiff", (150, 158, 98), cielab(150, 158, 98), 2),
    ("I", "tiff", 0x8040, (128, 128, 128), 0),
    ("I", "tiff", -5, (0, 0, 0), 0),
    ("I;16", "png", 0x8040, (128, 128, 128), 0),
    ("F", "tiff", 99.5, (99, 99, 99), 0),
    ("F", "tiff", float("nan"), (0, 0, 0), 0),
    ("F", "tiff", 1e30, (255, 255, 255), 0),
]


@pytest.mark.parametrize(("mode", "suffix", "pixel", "wanted", "tolerance"), COLOURS)
def test_every_mode_keeps_its_colour(
    mode: str, suffix: str, pixel: object, wanted: Pixel, tolerance: float, tmp_path: Path
) -> None:
    source = Image.new(mode, (5, 4))
    if mode in ("P", "PA"):
        source.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    source.paste(pixel, (0, 0, 5, 4)) if mode != "I;16" else source.putdata([pixel] * 20)
    source.save(tmp_path / f"x.{suffix}")
    with Image.open(tmp_path / f"x.{suffix}") as stored:
        assert stored.mode == mode
    image = read_image(tmp_path / f"x.{suffix}")
    assert (image.mode, image.size) == ("RGB", (5, 4))
    assert np.abs(np.asarray(image, float) - np.array(wanted)).max() <= tolerance


# From the stored to the upright image (EXIF 2.3, table 6), as array operations.
UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_orientations_are_undone_pixel_by_pixel(suffix: str, orientation: int, tmp_path: Path) -> None:
    stored = Image.open(write_picture(tmp_path / "source.png", (30, 20), seed=4))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored.save(tmp_path / f"x.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_image(tmp_path / f"x.{suffix}"), UPRIGHT[orientation](np.asarray(stored)))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    Image.new("RGB", (3, 2)).save(tmp_path / "x.png", exif=exif)
    assert read_image(tmp_path / "x.png").size == (3, 2)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_only_the_first_frame_is_read(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert np.asarray(read_image(tmp_path / f"x.{suffix}")).tolist() == [[[255, 0, 0]] * 8] * 8


def test_a_wrong_suffix_is_accepted(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "x.jpg", (30, 20), seed=5)
    picture.rename(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").size == (30, 20)


@pytest.mark.parametrize("size", [(7531, 300), (300, 7531), (1, 1), (1, 300), (2000, 1)])
@pytest.mark.parametrize("resize", [Resize("squash"), Resize("crop", 0.875)], ids=str)
def test_extreme_shapes_become_squares(size: tuple[int, int], resize: Resize, tmp_path: Path) -> None:
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "x.png")
    geometry = Geometry((32, 32), resize, "bicubic")
    square = read_squares(tmp_path / "x.png", [geometry])[geometry]
    assert square.shape == (32, 32, 3) and (square == (9, 99, 199)).all()


def make_png(width: int, height: int, content: bytes = b"") -> bytes:
    """Return a PNG of one bit per pixel whose header gives this size, whatever its content."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), b"IDAT" + content, b"IEND")
    body = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (13_377, 13_377)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(make_png(width, height))
    with pytest.raises(ImageError) as error:
        read_image(tmp_path / "x.png")
    found = f"x.png: found {width}x{height} = {width * height} pixels"
    assert str(error.value) == f"{found}; wanted at most 100000000 (`runtime.max_pixels`)"


@pytest.mark.parametrize("side", [14_000, 2**31 - 1])
def test_an_image_that_pillow_refuses_is_reported_with_our_limit(side: int, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(make_png(side, side))
    message = rf"^x\.png: Image size \({side**2} pixels\) .*; wanted at most {MAX_PIXELS} \(`runtime\.max_pixels`\)$"
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "x.png")


def test_an_image_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "x.png", (30, 20), seed=6)
    assert read_image(path, max_pixels=600).size == (30, 20)
    with pytest.raises(
        ImageError, match=r"^x\.png: found 30x20 = 600 pixels; wanted at most 599 \(`runtime\.max_pixels`\)$"
    ):
        read_squares(path, [Geometry((8, 8), Resize(), "bilinear")], max_pixels=599)


def test_a_jpeg_2000_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """Its decoder cannot be interrupted. The file is refused by the size in its header."""
    Image.new("L", (64, 64)).save(tmp_path / "x.png", "JPEG2000")
    assert read_image(tmp_path / "x.png").size == (64, 64)
    content = (tmp_path / "x.png").read_bytes()
    size = content.index(b"ihdr") + 4
    (tmp_path / "x.png").write_bytes(content[:size] + struct.pack(">II", 4001, 5000) + content[size + 8 :])
    message = "x.png: found 5000x4001 = 20005000 pixels; wanted at most 20000000 (for JPEG 2000)"
    with pytest.raises(ImageError, match=f"^{re.escape(message)}$"):
        read_image(tmp_path / "x.png")


def test_pipes_devices_folders_and_broken_links_are_refused_at_once(tmp_path: Path) -> None:
    """Opening a pipe would block, and reading a device would not end."""
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    messages = {}
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ImageError) as error:
            read_image(path)
        messages[path.name] = str(error.value)
    assert messages == {
        "dangling.png": "dangling.png: FileNotFoundError: [Errno 2] No such file or directory: 'dangling.png'",
        "device.png": "device.png: found a pipe or device; wanted a file",
        "folder.png": "folder.png: found a folder; wanted a file",
        "loop.png": "loop.png: OSError: [Errno 40] Too many levels of symbolic links: 'loop.png'",
        "pipe.png": "pipe.png: found a pipe or device; wanted a file",
    }


def test_a_link_to_an_image_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to(write_picture(tmp_path / "y.png", (30, 20), seed=7))
    assert read_image(tmp_path / "x.png").size == (30, 20)


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "x.png", (30, 20), seed=8)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(ImageError, match=r"^x\.png: PermissionError: "):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp", "tiff", "jp2", "tga"])
def test_a_file_cut_anywhere_is_an_image_with_a_note_or_an_image_error(suffix: str, tmp_path: Path) -> None:
    whole = write_picture(tmp_path / f"whole.{suffix}", (120, 90), seed=9).read_bytes()
    path = tmp_path / f"x.{suffix}"
    results = []
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        try:
            decoded = decode_image(path)
            assert decoded.image.size == (120, 90)
            results.append("note" if decoded.note else "whole")
        except ImageError as error:
            assert re.match(rf"x\.{suffix}: \S", str(error))
            results.append("refused")
    assert results.count("whole") <= 3, "only the bytes after the pixels may be missing without a note"
    assert results.count("refused" if suffix in ("webp", "jp2") else "note") > 40
