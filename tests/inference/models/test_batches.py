"""The search for the fastest batch size."""

import pytest

from inference.models.batches import BatchSizes


def try_all(sizes: BatchSizes, seconds: list[float]) -> list[int]:
    """Note the seconds per input for each trial in turn; return the sizes that were tried."""
    tried = []
    for spent in seconds:
        tried.append(sizes.current())
        sizes.note(sizes.current(), spent)
    return tried


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ((1.0, 1.0, 0.97, 0.97, 0.96, 0.96), 8),  # about equal: the larger is kept
        ((1.0, 1.0, 0.95, 0.95, 0.95, 0.95), 8),
        ((1.0, 1.0, 0.94, 0.94, 0.9, 0.9), 4),
        ((1.0, 1.0, 0.94, 0.94, 0.89, 0.89), 2),
        ((9.0, 1.0, 0.5, 9.0, 9.0, 9.0), 4),  # the fastest of two trials counts
        ((9.0, 0.4, 0.5, 0.5, 0.5, 0.5), 8),
    ],
)
def test_the_fastest_size_is_kept_after_two_trials_of_each(seconds: tuple[float, ...], best: int) -> None:
    sizes = BatchSizes(8)
    assert try_all(sizes, list(seconds)) == [8, 8, 4, 4, 2, 2]
    assert (sizes.current(), sizes.best()) == (best, best)
    sizes.note(2, 1e-9)
    assert sizes.current() == best, "the search is over"


@pytest.mark.parametrize(
    ("largest", "least", "tried"),
    [
        (16, 1, {16, 8, 4}),
        (16, 5, {16, 8, 5}),
        (16, 16, {16}),
        (16, 99, {16}),
        (3, 1, {3, 1}),
        (1, 1, {1}),
        (2, 1, {2, 1}),
    ],
)
def test_no_size_below_the_least_is_tried(largest: int, least: int, tried: set[int]) -> None:
    assert set(try_all(BatchSizes(largest, least), [1.0] * 6)) == tried


def test_a_size_that_does_not_fit_is_halved_and_smaller_ones_are_still_tried() -> None:
    sizes = BatchSizes(16)
    sizes.note(16, 1.0)
    sizes.halve()
    assert (sizes.limit, sizes.current()) == (8, 8)
    assert try_all(sizes, [1.0] * 4) == [8, 8, 4, 4]
    sizes.halve()
    assert try_all(sizes, [1.0] * 2) == [4, 4]
    assert sizes.current() == 4


def test_before_any_trial_the_limit_is_the_best() -> None:
    assert BatchSizes(16).best() == 16


def test_a_size_that_is_halved_between_two_tried_ones_is_tried() -> None:
    sizes = BatchSizes(20)  # 20, 10, 5
    try_all(sizes, [1.0, 1.0, 0.5, 0.5, 0.9, 0.9])
    assert sizes.current() == 10
    sizes.halve()
    assert (sizes.limit, sizes.current()) == (5, 5)


def test_without_a_least_size_one_image_may_be_a_batch() -> None:
    assert set(try_all(BatchSizes(3), [1.0] * 4)) == {3, 1}
