"""Damaged files are decoded as far as possible, with a note; good pixels beside broken metadata need no note."""

import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.basics.errors import ImageError, ImageMemoryError
from inference.images import read
from inference.images.geometry import Geometry
from inference.images.read import decode_image, read_image, read_picture
from inference.images.repair import DAMAGED, accept_damage, keep_pixels
from inference.manifest.model import Resize
from tests.conftest import write_picture


def make_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def test_a_good_file_has_no_note(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "x.png", (30, 20), seed=1)
    assert decode_image(path).note == read_picture(path, []).note == ""


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tiff"])
def test_the_rows_before_the_missing_bytes_are_those_of_the_whole_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.open(write_picture(tmp_path / "source.png", (200, 160), seed=2)).save(path, interlace=0)
    whole = np.asarray(read_image(path))
    decoded = decode_image(cut(path, 0.7))
    found = np.asarray(decoded.image)
    assert decoded.note == DAMAGED
    same = (found == whole).all(axis=(1, 2))
    if suffix == "bmp":  # stored from the bottom
        same = same[::-1]
    first = int(np.argmin(same))  # of the rows that differ
    assert 40 < first < 150 and not same[first + 8 :].any()
    last = found[0 if suffix == "bmp" else -1]
    assert (last == last[0]).all(), "the missing part is blank"


def test_a_progressive_jpeg_without_its_last_bytes_is_a_coarse_picture(tmp_path: Path) -> None:
    picture = Image.open(write_picture(tmp_path / "x.png", (200, 160), seed=3))
    picture.save(tmp_path / "x.jpg", progressive=True, quality=95)
    decoded = decode_image(cut(tmp_path / "x.jpg", 0.6))
    assert decoded.note == DAMAGED
    assert np.abs(np.asarray(decoded.image, float) - np.asarray(picture)).mean() < 12


def test_the_note_reaches_the_picture_for_the_models(tmp_path: Path) -> None:
    path = cut(write_picture(tmp_path / "x.png", (60, 40), seed=4), 0.8)
    geometry = Geometry((16, 16), Resize(), "bilinear")
    picture = read_picture(path, [geometry])
    assert picture.note == DAMAGED and picture.squares[geometry].shape == (16, 16, 3)


def write_with_chunk(path: Path, *chunks: bytes, before: bytes = b"IDAT") -> Path:
    """Write a PNG with further chunks."""
    content = write_picture(path, (30, 20), seed=5).read_bytes()
    place = content.index(before) - 4
    path.write_bytes(content[:place] + b"".join(chunks) + content[place:])
    return path


BROKEN = {
    "large text": make_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2_000_000))),
    "large text in unicode": make_chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
    "large profile": make_chunk(b"iCCP", b"key\0\0" + zlib.compress(bytes(2_000_000))),
    "short chromaticities": make_chunk(b"cHRM", b"\0"),
    "short gamma": make_chunk(b"gAMA", b""),
    "wrong checksum": make_chunk(b"tEXt", b"key\0value")[:-4] + b"\0\0\0\0",
    "frame without control": make_chunk(b"acTL", struct.pack(">II", 2, 0)) + make_chunk(b"fdAT", bytes(9)),
    "frame out of order": make_chunk(b"acTL", struct.pack(">II", 2, 0)) + make_chunk(b"fcTL", b"\xff" * 26),
}


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_png_with_good_pixels_and_broken_metadata_is_read_without_a_note(
    name: str, before: bytes, tmp_path: Path
) -> None:
    wanted = read_image(write_picture(tmp_path / "y.png", (30, 20), seed=5))
    decoded = decode_image(write_with_chunk(tmp_path / "x.png", BROKEN[name], before=before))
    assert decoded.image.tobytes() == wanted.tobytes() and decoded.note == ""


def test_a_repaired_png_keeps_transparency_palette_and_orientation(tmp_path: Path) -> None:
    stored = Image.open(write_picture(tmp_path / "source.png", (30, 20), seed=6)).quantize(16)
    exif = Image.Exif()
    exif[read.ORIENTATION_TAG] = 6
    stored.save(tmp_path / "x.png", transparency=3, exif=exif)
    wanted = read_image(tmp_path / "x.png")
    assert wanted.size == (20, 30)
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[:33] + BROKEN["short gamma"] + content[33:])
    decoded = decode_image(tmp_path / "x.png")
    assert decoded.image == wanted and decoded.note == ""


def test_only_the_pixels_of_a_png_are_kept(tmp_path: Path) -> None:
    whole = write_picture(tmp_path / "y.png", (30, 20), seed=5).read_bytes()
    path = write_with_chunk(tmp_path / "x.png", *BROKEN.values(), make_chunk(b"fdAT", bytes(99)))
    assert keep_pixels(path).getvalue() == whole
    path.write_bytes(whole[:50])
    assert keep_pixels(path).getvalue() == whole[:50]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_of_which_no_pixel_can_be_decoded_is_refused_with_the_first_reason(suffix: str, tmp_path: Path) -> None:
    path = write_picture(tmp_path / f"x.{suffix}", (200, 160), seed=7)
    content = path.read_bytes()
    start = content.index(b"IDAT") + 8 if suffix == "png" else content.index(b"\xff\xda") + 14
    path.write_bytes(content[:start])
    with pytest.raises(ImageError, match=rf"^x\.{suffix}: OSError: image file is truncated"):
        read_image(path)


def test_damage_is_accepted_in_one_thread_only(tmp_path: Path) -> None:
    path = cut(write_picture(tmp_path / "x.png", (60, 40), seed=8), 0.8)
    results: list[object] = []

    def load() -> None:
        try:
            with Image.open(path) as image:
                image.load()
            results.append("read")
        except OSError as error:
            results.append(type(error))

    load()
    with accept_damage():
        load()
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
    load()
    assert results == [OSError, "read", OSError, OSError]


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory when reading image file")])
def test_out_of_memory_is_no_damage(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The retry belongs to the decoders' threads, when other images have left the memory."""
    path, calls = write_picture(tmp_path / "x.png", (60, 40), seed=9), []

    def fail(image: Image.Image, frame: object) -> Image.Image:
        calls.append(image)
        raise error

    monkeypatch.setattr(read, "_to_rgb", fail)
    with pytest.raises(ImageMemoryError):
        read_image(path)
    assert len(calls) == 1


def test_a_limit_is_kept_in_every_further_reading(tmp_path: Path) -> None:
    path = write_with_chunk(tmp_path / "x.png", BROKEN["large text"])
    assert read_image(path, max_pixels=600).size == (30, 20)
    with pytest.raises(ImageError, match=r"^x\.png: found 30x20 = 600 pixels; wanted at most 599 "):
        read_image(path, max_pixels=599)
