"""What the page of a training folder shows: the images of each part, and the labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageFolder:
    """The images of one folder, train or test; the figures are of those that were looked at and could be read.

    `count`: images that train.csv, or the folder of test, names; `looked_at`: how many of them were opened; `missing`:
    ids; `unreadable`: reasons; `sizes`: (images, 2), width and height in px; `colours`: (images, 6, 4), for each of
    CHANNELS the mean, deviation, minimum and maximum of the image's pixels, 0 to 255.
    """

    name: str
    count: int
    looked_at: int
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    sizes: NDArray[np.int64]
    colours: NDArray[np.float64]

    @property
    def ratios(self) -> NDArray[np.float64]:
        """Width over height, (images,)."""
        ratios: NDArray[np.float64] = self.sizes[:, 0] / self.sizes[:, 1]
        return ratios

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Long side over short side, (images,)."""
        return np.maximum(self.ratios, 1 / self.ratios)


@dataclass(frozen=True)
class LabelCount:
    """A label, its name without the group's prefix, and how many images of train.csv have it."""

    name: str
    group: str
    images: int
    share: float
