"""Mixup and CutMix: pairs of images of a batch, mixed with their targets."""

from collections.abc import Callable
from typing import Any

import torch
from timm.data.mixup import Mixup

from training.recipe import Augmentation

BatchMixer = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def make_mixer(augmentation: Augmentation) -> BatchMixer | None:
    """Return a function that mixes a batch by timm's Mixup; None if the recipe mixes nothing.

    It takes and returns images, (images, channels, height, width), and targets, (images, labels), of float. All pairs
    of a batch, the first image with the last and so on, have the same shares. An odd batch stays as it is: its middle
    image has no partner. numpy's global state draws the shares.
    """
    if not (augmentation.mixup or augmentation.cutmix):
        return None

    def mix(batch: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(batch) % 2:
            return batch, targets
        # Each image is its own class, so that timm returns the shares of the images: (images, images).
        mixer: Any = Mixup(  # type: ignore[no-untyped-call]
            augmentation.mixup, augmentation.cutmix, label_smoothing=0.0, num_classes=len(batch)
        )
        mixed, shares = mixer(batch.clone(), torch.arange(len(batch), device=batch.device))
        return mixed, shares @ targets

    return mix
