"""Inputs of a network: augmented images for training, the kernel's squares for predictions."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.transforms_factory import create_transform
from torch.utils.data import DataLoader, Dataset

from inference.basics.errors import TrainingError
from inference.images.geometry import Geometry
from training.data.pictures import Pictures
from training.recipe import Recipe
from zoo.networks import Network


class TrainingSamples(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Augmented images, (3, size, size) of float, with their targets, (labels,); the same for the same seed and epoch.

    The random numbers of an image depend on (seed, epoch, row) only, not on the worker or the order of reading. So a
    resumed training gets the same images as an uninterrupted one.
    """

    def __init__(self, pictures: Pictures, targets: NDArray[Any], network: Network, recipe: Recipe):
        self.pictures, self.targets, self.seed, self.epoch = pictures, targets, recipe.seed, 0
        augmentation = recipe.augmentation
        self.transform = create_transform(
            (3, recipe.image_size, recipe.image_size),
            is_training=True,
            scale=(augmentation.smallest_crop, 1.0),
            hflip=augmentation.flip,
            color_jitter=None,  # type: ignore[arg-type]  # timm's value for none; 0 would cost time
            interpolation=network.interpolation,
            mean=network.mean,
            std=network.std,
            re_prob=augmentation.erase,
            re_mode="pixel",
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        with draw_from(self.seed, self.epoch, row):
            shown: torch.Tensor = self.transform(self.pictures.read(row))
        return shown, torch.from_numpy(self.targets[row].astype(np.float32))


class SquareSamples(Dataset[NDArray[np.uint8]]):
    """The kernel's input of each image, (squares, size, size, 3) of uint8: one square, or several tiles."""

    def __init__(self, pictures: Pictures, rows: NDArray[np.int64], geometry: Geometry):
        """Keep the images at `rows`; raises TrainingError: tiles needed, but `pictures` has decoded squares only."""
        if geometry.tiles and pictures.squares is not None:
            raise TrainingError(
                "`tiles`: found a cache of decoded squares; wanted whole images to cut; read the images without a cache"
            )
        self.pictures, self.rows, self.geometry = pictures, rows, geometry

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> NDArray[np.uint8]:
        shown = np.array(self.pictures.show(int(self.rows[place]), self.geometry))
        return shown if self.geometry.tiles else shown[None]


def order_epoch(rows: NDArray[np.int64], seed: int, epoch: int) -> list[int]:
    """Return the order of the images at `rows` in an epoch."""
    order: list[int] = np.random.default_rng([seed, epoch]).permutation(rows).tolist()
    return order


def load_training(samples: TrainingSamples, order: Sequence[int], batch_size: int, workers: int) -> DataLoader[Any]:
    """Load the batches of an epoch in order, without a last, smaller one: its images would have more weight."""
    return DataLoader(
        samples, batch_size, sampler=order, num_workers=workers, drop_last=True, pin_memory=torch.cuda.is_available()
    )


def load_squares(samples: SquareSamples, batch_size: int, workers: int) -> DataLoader[Any]:
    """Load batches of images in order: (squares, size, size, 3) of uint8, and the number of squares of each image."""
    return DataLoader(samples, batch_size, num_workers=workers, collate_fn=_join_squares)


def _join_squares(images: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], list[int]]:
    return np.concatenate(images), [len(squares) for squares in images]


@contextmanager
def draw_from(*seeds: int) -> Iterator[None]:
    """Seed the random numbers of torch, Python and numpy inside the context; restore their states after it."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    first = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])
    torch.manual_seed(first)
    random.seed(first)
    np.random.seed(first % 2**32)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
