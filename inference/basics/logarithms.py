"""Logarithms of scores, for geometric means: of views and of tiles."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Score whose logarithm is taken for smaller ones. ONNX Runtime's sigmoid on the CPU is wrong by up to 1.4e-7,
# which would change the geometric mean of eight views by 0.01 if the smallest score were 1e-7.
SMALLEST = np.float32(1e-5)


def take_logarithms(scores: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the natural logarithms of scores from 0 to 1, of any shape; a product of scores might underflow."""
    logarithms: NDArray[np.float32] = np.log(np.maximum(scores, SMALLEST))
    return logarithms
