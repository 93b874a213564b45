"""Images as a network takes them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def normalise(
    squares: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], device: torch.device
) -> torch.Tensor:
    """(images, size, size, 3) of uint8 to a float32 batch (images, 3, size, size), channels last in memory."""
    batch = torch.from_numpy(squares).to(device).permute(0, 3, 1, 2).float() / 255
    shape = (1, 3, 1, 1)
    return (batch - torch.tensor(mean, device=device).view(shape)) / torch.tensor(std, device=device).view(shape)
