"""What training does to a batch and the kernel does not: random crops and flips."""

import math

import torch
from torch.nn.functional import affine_grid, grid_sample

RATIOS = (3 / 4, 4 / 3)


def draw_crops(images: int, smallest: float, generator: torch.Generator) -> torch.Tensor:
    """One random crop for each image as the matrices that affine_grid takes, (images, 2, 3); half of them mirrored.

    Method: torchvision's RandomResizedCrop of a square, an area of at least `smallest` and an aspect ratio of
    RATIOS, but a side that would be longer than the image is cut where torchvision draws again.
    """

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.empty(images).uniform_(low, high, generator=generator)

    area, ratio = draw(smallest, 1), torch.exp(draw(*map(math.log, RATIOS)))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    crops = torch.zeros(images, 2, 3)
    crops[:, 0, 0], crops[:, 0, 2] = width * mirror, draw(-1, 1) * (1 - width)
    crops[:, 1, 1], crops[:, 1, 2] = height, draw(-1, 1) * (1 - height)
    return crops


def crop_batch(batch: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
    """The crops of a float batch (images, channels, size, size), each resized to the whole square (bilinear).

    A whole batch in one call: four times as fast on two cores as torchvision's transform, image by image.
    """
    grid = affine_grid(crops, list(batch.shape), align_corners=False)
    cropped = grid_sample(batch, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cropped.contiguous(memory_format=torch.channels_last)
