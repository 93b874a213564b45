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
    """Augmented images, (channels, height, width) of float, with their targets, (labels,).

    A crop has timm's random scale and aspect ratio and is squashed to the input, whatever `resize` of the recipe is;
    grey networks get Pillow's grey. Images are the same for the same seed and epoch: the random numbers of an image
    depend on (seed, epoch, row) only, not on the worker or the order of reading. So a resumed training gets the same
    images as an uninterrupted one.
    """

    def __init__(self, pictures: Pictures, targets: NDArray[Any], network: Network, recipe: Recipe):
        self.pictures, self.targets, self.seed, self.epoch = pictures, targets, recipe.seed, 0
        self.is_grey = recipe.channels == 1
        augmentation = recipe.augmentation
        self.transform = create_transform(
            (recipe.channels, *recipe.size),
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
            picture = self.pictures.read(row)
            shown: torch.Tensor = self.transform(picture.convert("L") if self.is_grey else picture)
        return shown, torch.from_numpy(self.targets[row].astype(np.float32))


class SquareSamples(Dataset[list[NDArray[np.uint8]]]):
    """The kernel's inputs of each image, one per geometry: (squares, height, width, 3) of uint8.

    Several squares are the tiles of a long image.
    """

    def __init__(self, pictures: Pictures, rows: NDArray[np.int64], geometries: Sequence[Geometry]):
        """Keep the images at `rows`; raises TrainingError: tiles needed, but `pictures` has decoded squares only."""
        if geometries[0].tiles and pictures.squares is not None:
            raise TrainingError(
                "`tiles`: found a cache of decoded squares; wanted whole images to cut; read the images without a cache"
            )
        self.pictures, self.rows, self.geometries = pictures, rows, tuple(geometries)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> list[NDArray[np.uint8]]:
        shown = self.pictures.show(int(self.rows[place]), self.geometries)
        arrays = [np.array(shown[geometry]) for geometry in self.geometries]
        return arrays if self.geometries[0].tiles else [array[None] for array in arrays]

    def join(self, images: Sequence[list[NDArray[np.uint8]]]) -> tuple[dict[Geometry, NDArray[np.uint8]], list[int]]:
        """Join images to a batch: arrays by geometry, and the number of squares of each image."""
        arrays = [np.concatenate(parts) for parts in zip(*images, strict=True)]
        return dict(zip(self.geometries, arrays, strict=True)), [len(parts[0]) for parts in images]


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
    """Load batches of images in order: arrays by geometry, and the number of squares of each image.

    An array: (squares of all images, height, width, 3) of uint8.
    """
    return DataLoader(samples, batch_size, num_workers=workers, collate_fn=samples.join)


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
