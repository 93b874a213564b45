import pytest

from inference.budget import estimate_reserve, fits_chunk


def test_the_first_chunk_always_fits_so_that_something_is_measured() -> None:
    assert fits_chunk(-5.0, [], 100.0)


@pytest.mark.parametrize(
    ("seconds_left", "chunk_seconds", "fits"),
    [
        (25.1, [10.0], True),  # 1.5 x 10 + a reserve of 10
        (24.9, [10.0], False),
        (24.9, [10.0, 1.0, 1.0, 1.0], True),  # a hiccup is forgotten after three chunks
        (24.9, [1.0, 1.0, 10.0], False),  # a model that has become slow is believed at once
        (-1.0, [0.001], False),
    ],
)
def test_a_chunk_fits_when_the_slowest_of_the_last_three_leaves_the_reserve(
    seconds_left: float, chunk_seconds: list[float], fits: bool
) -> None:
    assert fits_chunk(seconds_left, chunk_seconds, 10.0) is fits


def test_the_reserve_grows_with_the_images_that_are_still_to_be_decided() -> None:
    assert estimate_reserve(0.1, 100, 1000, 0.5) == pytest.approx(1 + 2 * (1.0 + 1.0))
