import numpy as np
import pytest
from PIL import Image

from inference.images.geometry import read_geometry, resize_image
from inference.manifest.model import Model, Resize
from training.data.material import choose_cached


def declare(size: tuple[int, int], resize: Resize) -> Model:
    return Model("one", "net", "all", size, (0.2, 0.4, 0.6), (0.3, 0.3, 0.3), "bicubic", resize=resize)


@pytest.mark.parametrize(
    ("size", "side", "cached"),
    [((32, 32), 40, (40, 40)), ((32, 64), 40, (40, 80)), ((912, 1520), 240, (240, 400)), ((30, 20), 25, (38, 25))],
)
def test_a_cache_has_the_aspect_ratio_of_the_network(size: tuple[int, int], side: int, cached: tuple[int, int]) -> None:
    assert choose_cached(declare(size, Resize()), side).size == cached


@pytest.mark.parametrize("resize", [Resize(), Resize("crop", 0.8), Resize("squash", 0.7), Resize("letterbox")])
def test_an_input_from_the_cache_shows_what_one_from_the_file_shows(resize: Resize) -> None:
    slope = np.linspace(0, 255, 400), np.linspace(0, 255, 250)
    columns, rows = np.meshgrid(*slope)
    image = Image.fromarray(np.stack([columns, rows, columns], axis=-1).astype(np.uint8))
    model = declare((100, 140), resize)
    cached = Image.fromarray(resize_image(image, choose_cached(model, 150)))
    near, exact = (resize_image(one, read_geometry(model)).astype(float) for one in (cached, image))
    assert np.abs(near - exact)[4:-4, 4:-4].mean() < 2
