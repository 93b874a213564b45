"""TODO."""

import os
from collections.abc import Iterable
from pathlib import Path

from inference.basics.errors import ImagesError

# In order of preference, where a folder holds one image in two formats.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def find_images(folder: Path, ids: Iterable[str]) -> list[Path | None]:
    """The file of each id, by name without its suffix; None where there is none.

    Raises ImagesError where the folder is absent, holds no image, or holds none of these ids.
    """
    if not folder.is_dir():
        raise ImagesError(f"{folder}: no such folder of images; name the one that holds the test images with --images")
    by_stem: dict[str, tuple[int, str]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in SUFFIXES:
                rank = SUFFIXES.index(suffix.lower())
                by_stem[stem] = min(by_stem.get(stem, (rank, entry.name)), (rank, entry.name))
    if not by_stem:
        raise ImagesError(f"{folder}: holds no image; wanted files such as ID{SUFFIXES[0]}")
    found = [folder / by_stem[name][1] if name in by_stem else None for name in ids]
    if not any(found):
        raise ImagesError(
            f"{folder}: holds {len(by_stem)} images but none of the {len(found)} ids of the sample submission; "
            "check that --images and --sample belong together"
        )
    return found
