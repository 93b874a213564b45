"""The files of the test images."""

import os
from collections.abc import Iterable
from pathlib import Path

from inference.basics.errors import ImagesError

# In order of preference if a folder has one image in several formats.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def find_images(folder: Path, ids: Iterable[str]) -> list[Path | None]:
    """Find the file of each id, whose name without suffix is the id; None for a missing file.

    Raises ImagesError: the folder is missing, has no image, or has no image of these ids.
    """
    if not folder.is_dir():
        raise ImagesError(f"{folder}: no such folder of images; give the folder of the test images with --images")
    by_stem: dict[str, tuple[int, str]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in SUFFIXES:
                rank = SUFFIXES.index(suffix.lower())
                by_stem[stem] = min(by_stem.get(stem, (rank, entry.name)), (rank, entry.name))
    if not by_stem:
        raise ImagesError(f"{folder}: found no image; wanted files such as ID{SUFFIXES[0]}")
    found = [folder / by_stem[name][1] if name in by_stem else None for name in ids]
    if not any(found):
        raise ImagesError(
            f"{folder}: found {len(by_stem)} images but none of the {len(found)} ids of the sample submission; "
            "check that --images and --sample belong together"
        )
    return found
