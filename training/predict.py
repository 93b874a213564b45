"""Predictions as the kernel makes them: the mean over its views."""

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from inference.views import VIEWS
from training.batches import normalise
from training.networks import Network


def predict_views(
    network: Network, squares: NDArray[np.uint8], rows: NDArray[np.int64], batch_size: int, device: torch.device
) -> NDArray[np.float32]:
    """Probabilities of the images at `rows`, (rows, labels): the mean over the kernel's views.

    `squares`: (images, size, size, 3).
    """
    network.module.eval()
    parts = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(rows), batch_size), "predicting the held-out fold", mininterval=1):
            batch = squares[rows[start : start + batch_size]]
            shown = [normalise(view(batch), network.mean, network.std, device) for view in VIEWS.values()]
            parts.append(torch.stack([network.module(view).sigmoid() for view in shown]).mean(dim=0).cpu().numpy())
    return np.concatenate(parts)
