"""Views (test-time augmentation): transforms of a batch, whose predictions are averaged."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from inference.manifest.values import View

Batch = NDArray[np.uint8]  # (images, height, width, 3)


def _show_as_is(batch: Batch) -> Batch:
    return batch


def _flip_horizontally(batch: Batch) -> Batch:
    return np.ascontiguousarray(batch[:, :, ::-1])


VIEWS: Mapping[View, Callable[[Batch], Batch]] = {"identity": _show_as_is, "hflip": _flip_horizontally}
