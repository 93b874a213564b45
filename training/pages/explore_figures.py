"""The figures on the page of `explore`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageFolder:
    """The images of one folder, train or test; from `ids` on, only the opened and readable ones."""

    name: str
    count: int
    """Rows of train.csv, or images in the test folder; `opened`: how many of them were opened."""
    opened: int
    missing: tuple[str, ...]
    """Image ids."""
    unreadable: tuple[str, ...]
    """Reasons."""
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    sizes: NDArray[np.int64]
    """(images, 2), width and height in px."""
    colours: NDArray[np.float64]
    """(images, 6, 4), mean, deviation, minimum and maximum per channel, 0 to 255."""

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
    """The frequency of a label in train.csv."""

    name: str
    """Without the prefix of the group."""
    group: str
    title: str
    """As in labels.csv."""
    images: int
    """With this label; of soft labels, those where it is true or the highest."""
    share: float
    """Mean of the targets: `images` divided by all images, if labels are not soft."""
