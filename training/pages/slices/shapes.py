"""Slices by the shape of the images."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.images.read import ORIENTATION_TAG
from training.data.pictures import find_pictures
from training.pages.slices.figures import Judged, ShapeFigures, name_steps

LONG = 2.0
RATIO_BOUNDS = (1, 1.5, 2, 3)
# EXIF 2.3, table 6: orientations that swap width and height.
SIDEWAYS = (5, 6, 7, 8)


def measure_sizes(
    folder: Path, ids: Sequence[str], files: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], list[str]]:
    """Read width and height of each upright image, (images, 2), from its header; (0, 0) and a reason if that fails.

    `files`: as in find_pictures. Raises TrainingError: the folder has none of the images.
    """
    paths = find_pictures(folder, ids, allow_missing=True, files=files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # waits for many files at once
        found = list(pool.map(read_size, paths))
    faults = [
        f"{image}: no such image in {folder}" if path is None else f"{path.name}: unreadable header"
        for image, path, size in zip(ids, paths, found, strict=True)
        if size == (0, 0)
    ]
    return np.array(found, np.int64).reshape(-1, 2), faults


def read_size(path: Path | None) -> tuple[int, int]:
    """Read width and height of an upright image in px, without decoding it; (0, 0) if that fails."""
    if path is None:
        return 0, 0
    try:
        with Image.open(path) as image:
            # Not image.getexif(): for PNG it decodes all pixels, because EXIF may follow them.
            turned = Image.Image.getexif(image).get(ORIENTATION_TAG) in SIDEWAYS
            turned = turned and image.format != "TIFF"  # Pillow has already swapped its size
            return (image.height, image.width) if turned else image.size
    except Exception:  # many kinds of errors, see read_image
        return 0, 0


def slice_shapes(sizes: NDArray[np.int64], judged: Mapping[str, Judged]) -> list[ShapeFigures]:
    """Score the blend by aspect ratio (long side / short side): below and above LONG, and in finer steps.

    `sizes`: (images, 2), width and height; `judged`: by kind of labels.
    """
    width, height = sizes.T
    known = width > 0
    ratios = sizes.max(axis=1) / np.maximum(sizes.min(axis=1), 1)
    long = known & (ratios >= LONG)
    shapes = {
        f"below {LONG:g}": known & ~long,
        f"{LONG:g} and above": long,
        f"{LONG:g} and above, wide": long & (width > height),
        f"{LONG:g} and above, high": long & (height > width),
    }
    steps = np.digitize(ratios, RATIO_BOUNDS)
    shapes |= {name: known & (steps == step) for step, name in enumerate(name_steps(RATIO_BOUNDS), 1)}
    shapes |= {} if known.all() else {"unknown": ~known}
    return [
        ShapeFigures(name, int(kept.sum()), {kind: part.score(kept) for kind, part in judged.items()})
        for name, kept in shapes.items()
    ]
