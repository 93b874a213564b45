"""The files of the test images."""

import os
from collections.abc import Iterable
from pathlib import Path

from inference.basics.errors import ImagesError

# In order of preference if a folder has one image in several formats; those of inference/images/formats.py.
COMMON = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
RARE = (".jpe", ".jfif", ".avif", ".jp2", ".j2k", ".apng", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".tga")
SUFFIXES = COMMON + RARE


def find_images(folder: Path, ids: Iterable[str]) -> list[Path | None]:
    """Find the file of each id, whose name without suffix is the id; None for a missing file.

    Raises ImagesError: the folder is missing, cannot be listed, has no image, or has no image of these ids.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        given = f"{folder}: no such folder of images; give the folder of the test images with --images"
        raise ImagesError(given) from None
    except OSError as error:
        raise ImagesError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    by_stem: dict[str, tuple[int, str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SUFFIXES:
            rank = SUFFIXES.index(suffix.lower())
            by_stem[stem] = min(by_stem.get(stem, (rank, name)), (rank, name))
    if not by_stem:
        raise ImagesError(f"{folder}: found no image; wanted files such as ID{SUFFIXES[0]}")
    found = [folder / by_stem[name][1] if name in by_stem else None for name in ids]
    if not any(found):
        raise ImagesError(
            f"{folder}: found {len(by_stem)} images but none of the {len(found)} ids of the sample submission; "
            "check that --images and --sample belong together"
        )
    return found
