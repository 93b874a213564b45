"""Formats of image files: those that are read, and the name of any other file."""

import io
import warnings
from pathlib import Path

from PIL import Image
from PIL.ImageFile import ImageFile

# Formats whose plugin neither decodes pixels nor starts a program before the size is known, nor opens an inner file of
# another format. So EPS (Ghostscript), IPTC (holds a file of any format), ICO, ICNS and FITS (decoded to learn their
# size) are left out. Pillow tries them in this order; TGA is last, as it has no signature. JPEG includes MPO.
WANTED = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "AVIF", "PPM", "PCX", "TGA")
Image.init()
FORMATS = tuple(name for name in WANTED if name in Image.OPEN)  # older versions of Pillow lack AVIF

WARNING_MODULES = r"(PIL|inference\.images)\b"
# Each filter set later comes before this one, so `open_image` puts it back.
warnings.filterwarnings("ignore", module=WARNING_MODULES)
IGNORED = warnings.filters[0]

HEAD_BYTES = 1024
# Offset, signature, name
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"BM", "BMP"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"icns", "ICNS"),
    (0, b"\x1c\x01", "IPTC"),
    (0, b"\x1c\x02", "IPTC"),
    (0, b"\x1c\x03", "IPTC"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "HDF5"),
    (128, b"DICM", "DICOM"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"version https://git-lfs", "a Git LFS pointer, which stands for the file"),
)
# Bytes that no text has.
CONTROLS = frozenset(range(32)) - frozenset(b"\t\r\n\f")


def open_image(source: Path | io.BytesIO) -> ImageFile:
    """Open a file of one of FORMATS with Pillow, without decoding its pixels. Raises what Pillow raises."""
    ignore_warnings()
    return Image.open(source, formats=FORMATS)


def describe_unknown(path: Path) -> str:
    """Return the reason why Pillow did not identify a file."""
    kind = name_kind(path)
    if kind in FORMATS:
        return f"found {kind}, damaged or of a kind that Pillow cannot open; wanted a whole file of a common kind"
    return f"found {kind}; wanted one of {', '.join(FORMATS)}"


def ignore_warnings() -> None:
    """Ignore what Pillow warns of: where warnings are errors, they would decide which images are readable."""
    if warnings.filters[:1] != [IGNORED]:
        warnings.filterwarnings("ignore", module=WARNING_MODULES)


def name_kind(path: Path) -> str:
    """Return what a file is by its first bytes: a name of FORMATS, or words for a message."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    if not head:
        return "an empty file"
    for offset, signature, name in SIGNATURES:
        if head.startswith(signature, offset):
            return name
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return "SVG"
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    return "text" if not set(head) & CONTROLS else "an unknown format"
