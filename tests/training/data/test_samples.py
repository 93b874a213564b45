import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation

from inference.basics.errors import TrainingError
from inference.images.geometry import Geometry
from inference.images.read import read_squares
from inference.manifest.model import Resize, Tiles
from training.data.pictures import Pictures, find_pictures
from training.data.samples import SquareSamples, TrainingSamples, draw_from, load_squares, load_training, order_epoch
from training.recipe import Augmentation, Recipe
from zoo.networks import Design, Network, create_network

RECIPE = Recipe("one", "test_resnet", 32, 1, augmentation=Augmentation(smallest_crop=0.4, erase=0.7))
IDS = 12


@pytest.fixture(scope="module")
def network() -> Network:
    return create_network(Design("test_resnet", (32, 32), 4))


@pytest.fixture
def samples(museum: Path, network: Network) -> TrainingSamples:
    ids = sorted(path.stem for path in (museum / "train").iterdir())[:IDS]
    targets = np.eye(IDS, 4, dtype=np.bool_)
    return TrainingSamples(Pictures(find_pictures(museum / "train", ids)), targets, network, RECIPE)


def test_the_augmentation_is_timms(samples: TrainingSamples) -> None:
    kinds = {type(part): part for part in samples.transform.transforms}
    crop, erase = kinds[RandomResizedCropAndInterpolation], kinds[RandomErasing]
    assert (crop.scale, crop.size) == ((0.4, 1.0), (32, 32))
    assert erase.probability == 0.7
    assert "RandomHorizontalFlip" in {kind.__name__ for kind in kinds}
    assert not {"ColorJitter", "RandomGrayscale"} & {kind.__name__ for kind in kinds}


@pytest.mark.parametrize(("channels", "size"), [(1, (32, 32)), (3, (24, 48)), (1, (48, 24))])
def test_grey_and_oblong_inputs_get_pillows_grey_and_timms_crop(
    channels: int, size: tuple[int, int], samples: TrainingSamples
) -> None:
    recipe = dataclasses.replace(RECIPE, channels=channels, image_size=size, augmentation=Augmentation())
    network = create_network(Design("test_resnet", size, 4, channels))
    shown = TrainingSamples(samples.pictures, samples.targets, network, recipe)
    with draw_from(recipe.seed, 0, 5):
        picture = samples.pictures.read(5).convert("RGB" if channels == 3 else "L")
        crop = RandomResizedCropAndInterpolation(size, (0.5, 1.0), interpolation=network.interpolation)(picture)
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else crop
    pixels = np.asarray(crop, np.float32).reshape(*size, channels) / 255
    expected = (pixels - np.float32(network.mean)) / np.float32(network.std)
    np.testing.assert_allclose(shown[5][0].numpy(), expected.transpose(2, 0, 1), rtol=0, atol=1e-5)


def test_augmentation_does_not_depend_on_the_worker_or_the_order(samples: TrainingSamples) -> None:
    alone = samples[5][0]
    random.seed(99)
    torch.manual_seed(99)
    assert torch.equal(samples[5][0], alone)
    order = list(range(IDS))
    for workers in (0, 2):
        batches = list(load_training(samples, order, 4, workers))
        assert torch.equal(batches[1][0][1], alone)
        assert torch.equal(torch.cat([targets for _, targets in batches]), torch.from_numpy(samples.targets).float())


def test_another_epoch_augments_differently(samples: TrainingSamples) -> None:
    first = samples[5][0]
    samples.epoch = 1
    assert not torch.equal(samples[5][0], first)


def test_reading_leaves_the_global_random_state_unchanged(samples: TrainingSamples) -> None:
    torch.manual_seed(1)
    random.seed(1)
    expected = torch.rand(3), random.random()
    torch.manual_seed(1)
    random.seed(1)
    samples[0]
    with draw_from(4):
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]


def test_each_epoch_has_its_own_order_of_the_same_images() -> None:
    rows = np.arange(10, 40)
    first, same, second = (order_epoch(rows, 3, epoch) for epoch in (0, 0, 1))
    assert first == same != second
    assert sorted(first) == sorted(second) == rows.tolist()


def test_a_smaller_last_batch_is_dropped(samples: TrainingSamples) -> None:
    assert [len(targets) for _, targets in load_training(samples, list(range(11)), 4, 0)] == [4, 4]


def test_squares_equal_the_kernels_in_the_order_of_the_rows(museum: Path, samples: TrainingSamples) -> None:
    geometries = [
        Geometry((16, 16), Resize("crop", 0.9), "bicubic"),
        Geometry((8, 24), Resize("letterbox"), "bilinear"),
    ]
    rows = np.array([7, 2, 9])
    batches = list(load_squares(SquareSamples(samples.pictures, rows, geometries), 2, 1))
    assert [counts for _, counts in batches] == [[1, 1], [1]]
    for geometry in geometries:
        for row, square in zip(rows, np.concatenate([squares[geometry] for squares, _ in batches]), strict=True):
            path = samples.pictures.paths[row]
            assert path is not None
            assert np.array_equal(square, read_squares(path, [geometry])[geometry])


def test_tiles_are_loaded_with_their_number_and_never_cut_from_decoded_squares(samples: TrainingSamples) -> None:
    geometry = Geometry((16, 16), Resize(), "bilinear", Tiles(1.2, 2))
    shown = SquareSamples(samples.pictures, np.arange(IDS), [geometry])
    (squares, counts), *_ = load_squares(shown, IDS, 0)
    sizes = [samples.pictures.read(row).size for row in range(IDS)]
    assert counts == [2 if max(size) > 1.2 * min(size) else 1 for size in sizes] and {1, 2} == set(counts)
    assert squares[geometry].shape == (sum(counts), 16, 16, 3)
    with pytest.raises(TrainingError) as error:
        SquareSamples(Pictures(samples.pictures.paths, squares[geometry]), np.arange(IDS), [geometry])
    assert str(error.value) == (
        "`tiles`: found a cache of decoded squares; wanted whole images to cut; read the images without a cache"
    )
