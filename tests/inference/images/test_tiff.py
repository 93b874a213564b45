"""TIFF files that Pillow cannot open, written here byte by byte (TIFF 6.0)."""

import io
import itertools
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference.basics.errors import ImageError
from inference.images.read import decode_image, read_image

HEIGHT, WIDTH = 21, 26


def paint(samples: int = 3) -> NDArray[np.float64]:
    """Return a smooth picture of values from 0 to 1, (HEIGHT, WIDTH, samples)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [x / (WIDTH - 1), y / (HEIGHT - 1), (x + y) / (WIDTH + HEIGHT - 2), 1 - x / (WIDTH - 1)]
    return np.stack(planes[:samples], axis=2)


def split(pixels: NDArray[Any], tile: int | None, rows: int, separate: bool) -> list[NDArray[Any]]:
    """Cut the picture into strips of `rows`, or into tiles of `tile` x `tile`, filled up with zeros."""
    planes = np.split(pixels, pixels.shape[2], axis=2) if separate else [pixels]
    blocks = []
    for plane in planes:
        if tile is None:
            blocks += [plane[top : top + rows] for top in range(0, HEIGHT, rows)]
            continue
        for top, left in itertools.product(range(0, HEIGHT, tile), range(0, WIDTH, tile)):
            block = np.zeros((tile, tile, plane.shape[2]), pixels.dtype)
            part = plane[top : top + tile, left : left + tile]
            block[: part.shape[0], : part.shape[1]] = part
            blocks.append(block)
    return blocks


def predict(block: NDArray[Any], predictor: int) -> bytes:
    """Encode a block with a predictor: 1 none, 2 differences of numbers, 3 differences of sorted bytes."""
    height, width, samples = block.shape
    if predictor == 2:
        numbers = block.view(block.dtype.str.replace("f", "u"))
        return np.diff(numbers, axis=1, prepend=numbers.dtype.type(0)).astype(numbers.dtype).tobytes()
    if predictor == 3:
        size = block.dtype.itemsize
        raw = np.frombuffer(block.astype(block.dtype.newbyteorder(">")).tobytes(), np.uint8)
        lanes = raw.reshape(height, width * samples, size).transpose(0, 2, 1).reshape(height, -1, samples)
        return np.diff(lanes, axis=1, prepend=np.uint8(0)).tobytes()
    return block.tobytes()


def write_tiff(
    path: Path,
    pixels: NDArray[Any],
    *,
    order: str = "<",
    tile: int | None = None,
    separate: bool = False,
    predictor: int = 1,
    deflate: bool = False,
    blocks: list[bytes] | None = None,
    **changed: int,
) -> Path:
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    samples = pixels.shape[2]
    if blocks is None:
        blocks = [predict(np.ascontiguousarray(block), predictor) for block in split(pixels, tile, 8, separate)]
        blocks = [zlib.compress(block) if deflate else block for block in blocks]
    offsets = [8 + sum(map(len, blocks[:place])) for place in range(len(blocks))]
    tags: dict[int, list[int]] = {256: [WIDTH], 257: [HEIGHT], 258: [8 * pixels.dtype.itemsize] * samples}
    tags |= {259: [8 if deflate else 1], 262: [2 if samples >= 3 else 1], 277: [samples]}
    tags |= {284: [2 if separate else 1], 317: [predictor], 339: [3 if pixels.dtype.kind == "f" else 1] * samples}
    tags |= {322: [tile], 323: [tile]} if tile else {278: [8]}
    tags |= {324 if tile else 273: offsets, 325 if tile else 279: list(map(len, blocks))}
    tags |= {int(tag.removeprefix("tag")): [value] for tag, value in changed.items()}
    body = b"".join(blocks)
    entries, further = b"", b""
    after = 8 + len(body) + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        values = struct.pack(f"{order}{len(tags[tag])}I", *tags[tag])
        place = values if len(values) == 4 else struct.pack(f"{order}I", after + len(further))
        further += values if len(values) > 4 else b""
        entries += struct.pack(f"{order}HHI", tag, 4, len(tags[tag])) + place
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(body))
    path.write_bytes(head + body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + further)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("tile", "separate"), [(None, False), (None, True), (16, False), (16, True)])
@pytest.mark.parametrize(
    ("dtype", "predictor", "deflate"),
    [("f4", 1, False), ("f4", 1, True), ("f4", 2, True), ("f4", 3, True), ("f2", 3, True), ("f8", 1, False)],
)
def test_rgb_of_floats_is_scaled_from_0_to_1(
    dtype: str, predictor: int, deflate: bool, tile: int | None, separate: bool, order: str, tmp_path: Path
) -> None:
    form = {"order": order, "tile": tile, "separate": separate, "predictor": predictor, "deflate": deflate}
    decoded = decode_image(write_tiff(tmp_path / "x.tif", paint().astype(dtype), **form))  # type: ignore[arg-type]
    assert np.abs(np.asarray(decoded.image) - 255 * paint()).max() < 0.7 and decoded.note == ""


def test_other_rare_samples_are_scaled(tmp_path: Path) -> None:
    whole = paint()
    cases = {
        "floats to 255": (255 * whole).astype("f4"),
        "32 bits": (whole * (2**32 - 1)).astype("u4"),
        "grey doubles": whole[..., :1].astype("f8"),
    }
    for name, pixels in cases.items():
        found = np.asarray(read_image(write_tiff(tmp_path / "x.tif", pixels)))
        assert np.abs(found - 255 * whole[..., : pixels.shape[2]]).max() <= 1, name


def test_transparency_white_as_zero_and_orientation_are_respected(tmp_path: Path) -> None:
    pixels = paint(4).astype("f4")
    found = np.asarray(read_image(write_tiff(tmp_path / "x.tif", pixels, tag338=2)))
    assert np.abs(found - 255 * (pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:])).max() < 2
    found = np.asarray(read_image(write_tiff(tmp_path / "x.tif", pixels, tag338=0)))
    assert np.abs(found - 255 * pixels[..., :3]).max() < 0.7, "a fourth sample of unknown meaning is left out"
    found = np.asarray(read_image(write_tiff(tmp_path / "x.tif", pixels[..., :1].astype("f8"), tag262=0)))
    assert np.abs(found - 255 * (1 - pixels[..., :1])).max() < 1.1
    found = np.asarray(read_image(write_tiff(tmp_path / "x.tif", pixels[..., :3], tag274=6)))
    assert np.abs(found - 255 * np.rot90(pixels[..., :3], -1)).max() < 0.7


@pytest.mark.parametrize("tile", [None, 16])
def test_webp_inside_a_tiff_is_decoded(tile: int | None, tmp_path: Path) -> None:
    pixels = (255 * paint()).astype(np.uint8)
    blocks = []
    for block in split(pixels, tile, 8, separate=False):
        content = io.BytesIO()
        Image.fromarray(block).save(content, "WEBP", lossless=True)
        blocks.append(content.getvalue())
    path = write_tiff(tmp_path / "x.tif", pixels, tile=tile, blocks=blocks, tag259=50001)
    assert np.array_equal(np.asarray(read_image(path)), pixels)


def test_a_webp_larger_than_its_block_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (3000, 2000)).save(content, "WEBP", lossless=True)
    path = write_tiff(
        tmp_path / "x.tif", paint().astype(np.uint8), blocks=[content.getvalue()], tag259=50001, tag278=HEIGHT
    )
    with pytest.raises(ImageError, match=r"^x\.tif: "):
        read_image(path)


@pytest.mark.parametrize(
    ("changed", "size"),
    [({"tag256": 20_000, "tag257": 20_000}, "20000x20000 = 400000000"), ({"tag322": 90_000}, "90000x16 = 1440000")],
)
def test_the_limit_of_pixels_holds_for_the_image_and_for_a_tile(
    changed: dict[str, int], size: str, tmp_path: Path
) -> None:
    path = write_tiff(tmp_path / "x.tif", paint().astype("f4"), tile=16, **changed)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=rf"^x\.tif: found {re.escape(size)} pixels; wanted at most 1000000 "):
        read_image(path, max_pixels=1_000_000)


@pytest.mark.parametrize("changed", [{"tag277": 60_000}, {"tag258": 12}, {"tag339": 2}, {"tag262": 5}, {"tag278": 1}])
def test_a_kind_that_is_not_read_is_refused_with_its_format(changed: dict[str, int], tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", paint().astype("f4"), **changed)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"^x\.tif: found TIFF, damaged or of a kind that Pillow cannot open; "):
        read_image(path)
