"""A second reading of files that are damaged, or whose pixels are good and whose other data is not."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile

DAMAGED = "damaged or incomplete; the part that could not be decoded is blank"
# Without any other chunk a PNG's pixels are the same (PNG 3, section 5.6); eXIf has the orientation.
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")

# A JPEG decoder may fill a few blocks before it finds that the data ends.
BLANK_SHARE = 0.99
FEW_COLOURS = 256


class _Tolerance(threading.local):
    """Truth value: whether reads in this thread accept damaged files."""

    accepted = False

    def __bool__(self) -> bool:
        return self.accepted


# Pillow has one flag for all threads, so setting it would also change what other threads read at the moment.
_tolerance = _Tolerance()
ImageFile.LOAD_TRUNCATED_IMAGES = _tolerance  # type: ignore[assignment]


@contextmanager
def accept_damage() -> Iterator[None]:
    """Make Pillow decode what it can of damaged files, in this thread only."""
    _tolerance.accepted = True
    try:
        yield
    finally:
        _tolerance.accepted = False


def keep_pixels(path: Path) -> io.BytesIO:
    """Return a PNG file with no other chunks than PNG_CHUNKS: neither texts nor the frames of an animation."""
    kept = io.BytesIO()
    with path.open("rb") as file:
        kept.write(file.read(8))
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big") + 4  # with the checksum
            if head[4:] in PNG_CHUNKS:
                kept.write(head + file.read(length))
            else:
                file.seek(length, io.SEEK_CUR)
    kept.seek(0)
    return kept


def is_blank(image: Image.Image) -> bool:
    """Return whether nearly all pixels of an RGB image are equal, as if nothing was decoded."""
    colours = image.getcolors(FEW_COLOURS) or []
    return max((count for count, _ in colours), default=0) > BLANK_SHARE * image.width * image.height
