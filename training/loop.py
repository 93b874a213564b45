"""The training loop: binary cross-entropy, AdamW, one cycle of the learning rate."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from inference.errors import TrainingError
from training.augment import crop_batch, draw_crops
from training.batches import normalise
from training.networks import Network


@dataclass(frozen=True)
class LoopSettings:
    """How long, how fast and from which seed.

    `learning_rate`: the highest of the cycle; `smallest_crop`: the least part of an image's area that is shown.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    smallest_crop: float
    seed: int


def train_network(
    network: Network,
    squares: NDArray[np.uint8],
    targets: NDArray[np.bool_],
    rows: NDArray[np.int64],
    settings: LoopSettings,
    log: Path,
    device: torch.device,
) -> None:
    """Train on the images at `rows`, in place; the mean loss and the seconds of each epoch go to `log` (CSV).

    `squares`: (images, size, size, 3); `targets`: (images, labels of the network). The same seed gives the same
    weights on the same CPU. Raises TrainingError where the loss is no longer a number. Method of the learning rate:
    Smith and Topin, Super-Convergence, 2018.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    # A last, smaller batch would weigh its images more and, of one image, break batch normalisation: it is left out,
    # other images each epoch.
    batch_size = min(settings.batch_size, len(rows))
    steps = len(rows) // batch_size
    optimizer = torch.optim.AdamW(network.module.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * steps
    )
    with log.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["epoch", "loss", "seconds"])
        for epoch in range(1, settings.epochs + 1):
            network.module.train()
            started, total = time.monotonic(), 0.0
            shuffled = rows[torch.randperm(len(rows), generator=generator).numpy()]
            progress = tqdm(range(steps), f"epoch {epoch}/{settings.epochs}", mininterval=1)
            for step in progress:
                batch_rows = shuffled[step * batch_size : (step + 1) * batch_size]
                crops = draw_crops(batch_size, settings.smallest_crop, generator).to(device)
                batch = crop_batch(normalise(squares[batch_rows], network.mean, network.std, device), crops)
                wanted = torch.from_numpy(targets[batch_rows]).to(device).float()
                loss = binary_cross_entropy_with_logits(network.module(batch), wanted)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total += loss.item()
                progress.set_postfix(loss=f"{total / (step + 1):.4f}", refresh=False)
            if not np.isfinite(total):
                raise TrainingError(f"epoch {epoch}: the loss is {total}; try a lower --learning-rate")
            table.writerow([epoch, f"{total / steps:.6f}", f"{time.monotonic() - started:.1f}"])
            file.flush()
