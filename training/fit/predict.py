"""Predictions as the kernel makes them: its squares, and the mean over its views."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from inference.rules import View
from inference.tiles import merge_tiles
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
    """Probabilities of the samples, (images, labels): the mean over the kernel's `views` of their squares or tiles."""
    network.module.eval()
    tiles = samples.geometry.tiles
    parts = []
    with torch.inference_mode(), tqdm(total=len(samples), desc=title, unit="img", mininterval=1) as bar:
        for squares, counts in load_squares(samples, batch_size, workers):
            shown = [normalise(VIEWS[view](squares), network.mean, network.std, device) for view in views]
            scores = torch.stack([network.module(view).float().sigmoid() for view in shown]).cpu().numpy()
            if tiles:
                scores = np.stack([merge_tiles(view, counts, tiles.merge) for view in scores])
            parts.append(scores.mean(axis=0))
            bar.update(len(counts))
    return np.concatenate(parts)
