"""Predictions as the kernel makes them: its squares, and the mean over its views."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from inference.manifest import View
from inference.views import VIEWS
from training.batches import normalise
from training.networks import Network
from training.samples import SquareSamples, load_squares


def predict_views(
    network: Network,
    samples: SquareSamples,
    views: Sequence[View],
    device: torch.device,
    batch_size: int,
    workers: int,
    title: str,
) -> NDArray[np.float32]:
    """Probabilities of the samples, (images, labels): the mean over the kernel's `views` of their squares."""
    network.module.eval()
    parts = []
    with torch.inference_mode(), tqdm(total=len(samples), desc=title, unit="img", mininterval=1) as bar:
        for squares in load_squares(samples, batch_size, workers):
            shown = [normalise(VIEWS[view](squares), network.mean, network.std, device) for view in views]
            parts.append(torch.stack([network.module(view).float().sigmoid() for view in shown]).mean(0).cpu().numpy())
            bar.update(len(squares))
    return np.concatenate(parts)
