"""Files of other formats are refused with their name; nothing is decoded while a file is opened."""

import io
import re
import struct
import threading
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from inference.basics.errors import ImageError
from inference.images.formats import FORMATS, name_kind, open_image
from inference.images.read import decode_image, read_image
from tests.conftest import write_picture


def save(name: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(content, name)
    return content.getvalue()


def wrap_in_iptc(content: bytes, width: int = 8, height: int = 6) -> bytes:
    """Return an IPTC file that holds a file of another format (IIM 4.2, records 3 and 8), as Pillow reads it."""
    fields = [
        (3, 20, struct.pack(">I", width)),
        (3, 30, struct.pack(">I", height)),
        (3, 60, b"\1\0"),
        (3, 120, b"\5"),
        (8, 10, content),
    ]
    return b"".join(struct.pack(">BBBH", 0x1C, record, tag, len(value)) + value for record, tag, value in fields)


# Name of the case, content, what the message says was found
OTHERS: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "an empty file"),
    ("text", b"no image\n", "text"),
    ("page", b"\n<!DOCTYPE html><html>404 Not Found</html>", "an HTML page"),
    ("page without a type", b"<HTML><body>404</body></HTML>", "an HTML page"),
    ("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer, "),
    ("drawing", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ("heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC"),
    ("pdf", b"%PDF-1.7\n", "PDF"),
    ("zip", b"PK\x03\x04" + bytes(26), "a ZIP archive"),
    ("dicom", bytes(128) + b"DICM", "DICOM"),
    ("array", b"\x93NUMPY\1\0", "a NumPy array"),
    ("noise", b"\x07\x01\x13\x99" * 9, "an unknown format"),
    ("eps", save("EPS"), "EPS"),
    ("icns", save("ICNS"), "ICNS"),
    ("ico", save("ICO"), "ICO"),
    ("eps in iptc", wrap_in_iptc(save("EPS")), "IPTC"),
    ("png in iptc", wrap_in_iptc(save("PNG")), "IPTC"),
]


@pytest.mark.parametrize(("content", "found"), [case[1:] for case in OTHERS], ids=[case[0] for case in OTHERS])
def test_a_file_of_another_format_is_refused_with_its_name(content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError) as error:
        read_image(tmp_path / "x.png")
    assert str(error.value).startswith(f"x.png: found {found}")
    assert str(error.value).endswith("; wanted one of " + ", ".join(FORMATS))


def test_the_iptc_file_of_this_test_is_one_that_pillow_would_open(tmp_path: Path) -> None:
    (tmp_path / "x.iim").write_bytes(wrap_in_iptc(save("PNG")))
    with Image.open(tmp_path / "x.iim") as image:
        assert image.format == "IPTC" and image.getpixel((0, 0)) == (255, 0, 0)


def test_a_file_that_vanished_has_no_kind(tmp_path: Path) -> None:
    assert name_kind(tmp_path / "x.png") == "a file that cannot be read (No such file or directory)"


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "GIF"])
def test_a_broken_head_is_told_from_another_format(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(save(name)[:8] + b"garbage")
    with pytest.raises(ImageError, match=rf"^x\.png: (found {name}, damaged|OSError|ValueError)"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("name", [*FORMATS, "MPO"])
def test_opening_decodes_no_pixels_and_opens_no_inner_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the limits would come too late."""
    picture, options = Image.new("RGB", (8, 6), "red"), {}
    if name == "MPO":
        options = {"save_all": True, "append_images": [Image.new("RGB", (8, 6))]}
    picture.save(tmp_path / "x.png", name, **options)
    calls: list[str] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: calls.append("load"))
    monkeypatch.setattr(Image, "_getdecoder", lambda *_: calls.append("decoder"))
    really = Image.open
    monkeypatch.setattr(Image, "open", lambda *given, **named: calls.append("open") or really(*given, **named))
    with open_image(tmp_path / "x.png") as image:
        assert image.size == (8, 6) and image.format in (name, "JPEG", "BMP")
    assert calls == ["open"]


def write_odd_animation(path: Path) -> Path:
    """Write a PNG whose animation has no frame, of which Pillow warns."""
    content = write_picture(path, (30, 20), seed=1).read_bytes()
    chunk = b"acTL" + bytes(8)
    path.write_bytes(content[:33] + struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:])
    return path


def test_no_warning_filter_decides_whether_an_image_is_readable(tmp_path: Path) -> None:
    wanted = list(read_image(write_picture(tmp_path / "y.png", (30, 20), seed=1)).tobytes())
    path = write_odd_animation(tmp_path / "x.png")
    found: list[object] = []

    def read() -> None:
        try:
            found.append(list(decode_image(path).image.tobytes()))
        except ImageError as error:
            found.append(str(error))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="Invalid APNG"), Image.open(path):
            pass
        read()
        warnings.simplefilter("error")
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert found == [wanted, wanted]


def test_tiles_of_a_tiff_count_as_pixels(tmp_path: Path) -> None:
    """A tile of 40,000 x 40,000 around 10 x 10 pixels would take 1.6 GB."""
    side, data = 40_000, zlib.compress(bytes(99))
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: len(data)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()) + bytes(4)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    (tmp_path / "x.tif").write_bytes(head + data + struct.pack("<H", len(tags)) + directory)
    message = "x.tif: found 40000x40000 = 1600000000 pixels; wanted at most 100000000 (`runtime.max_pixels`, also in a"
    with pytest.raises(ImageError, match=f"^{re.escape(message)}"):
        read_image(tmp_path / "x.tif")
