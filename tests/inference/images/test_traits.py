import colorsys
import statistics

import numpy as np
import pytest
from PIL import Image

from inference.images.traits import TRAITS, measure_traits


def measure_slowly(image: Image.Image) -> list[float]:
    """Measure the traits with a loop over all pixels."""
    pixels = [image.getpixel((x, y)) for y in range(image.height) for x in range(image.width)]
    lumas = [(0.299 * r + 0.587 * g + 0.114 * b) / 255 for r, g, b in pixels]
    red_green = [r - g for r, g, _ in pixels]
    yellow_blue = [0.5 * (r + g) - b for r, g, b in pixels]
    deviation = (statistics.pvariance(red_green) + statistics.pvariance(yellow_blue)) ** 0.5
    distance = (statistics.fmean(red_green) ** 2 + statistics.fmean(yellow_blue) ** 2) ** 0.5
    upright = 1.0 if image.height > image.width else 0.0
    return [statistics.fmean(lumas), deviation + 0.3 * distance, max(image.size), upright]


def draw_image(width: int, height: int, seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(40, 60), (127, 90), (1, 1), (5, 1)])
def test_traits_of_a_small_image_equal_those_of_a_loop_over_pixels(size: tuple[int, int]) -> None:
    image = draw_image(*size, seed=1)
    assert measure_traits(image).tolist() == pytest.approx(measure_slowly(image), rel=1e-5, abs=1e-5)


def test_traits_of_a_large_image_are_close_to_those_of_all_its_pixels() -> None:
    image = draw_image(8, 6, seed=2).resize((480, 360), Image.Resampling.BICUBIC)
    assert measure_traits(image)[:2].tolist() == pytest.approx(measure_slowly(image)[:2], rel=0.03)


def test_the_traits_of_an_extreme_strip_include_its_own_length() -> None:
    traits = dict(zip(TRAITS, measure_traits(Image.new("RGB", (7531, 3), (255, 255, 255))).tolist(), strict=True))
    assert traits == {"brightness": pytest.approx(1), "colourfulness": 0, "longest side": 7531, "upright": 0}


def test_grey_has_no_colourfulness_and_a_rainbow_more_than_its_pale_copy() -> None:
    def paint(saturation: float) -> Image.Image:
        rows = [[colorsys.hsv_to_rgb(place / 32, saturation, 1) for place in range(32)]] * 32
        return Image.fromarray((np.array(rows) * 255).astype(np.uint8))

    grey, pale, rainbow = (float(measure_traits(paint(saturation))[1]) for saturation in (0.0, 0.5, 1.0))
    assert grey == 0
    assert grey < pale < rainbow


def test_only_an_image_higher_than_wide_is_upright() -> None:
    upright = [float(measure_traits(Image.new("RGB", size))[3]) for size in ((3, 4), (4, 4), (4, 3))]
    assert upright == [1, 0, 0]
