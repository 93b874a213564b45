from collections.abc import Iterator

import pytest

from inference.basics.deadline import Deadline
from inference.run.budget import RECENT, SMALLEST_INTERVAL, SMALLEST_RESERVE, Pace


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def hands() -> Iterator[Hands]:
    yield Hands()


def open_pace(hands: Hands, left: float) -> Pace:
    """Return the pace of a run with `left` seconds for its work."""
    return Pace(Deadline(hands.time, left + SMALLEST_RESERVE, now=hands))


def test_the_time_left_is_what_the_limit_leaves_without_the_reserve(hands: Hands) -> None:
    pace = Pace(Deadline(hands.time, 100, kept=10, now=hands))
    pace.note_submission(4)
    assert pace.reserve == pytest.approx(SMALLEST_RESERVE + 2 * 4)
    hands.time += 30
    assert pace.left() == pytest.approx(100 - 10 - 30 - pace.reserve)


def test_the_reserve_shrinks_again(hands: Hands) -> None:
    pace = open_pace(hands, 100)
    for seconds in (20, 1):
        pace.note_submission(seconds)
    assert pace.reserve == pytest.approx(SMALLEST_RESERVE + 2)


@pytest.mark.parametrize(("left", "fits"), [(61, True), (59, False), (0, False)])
def test_a_pass_fits_with_a_margin(left: float, fits: bool, hands: Hands) -> None:
    pace = open_pace(hands, left)
    pace.note_pass("a", 10, 20)
    assert pace.fits("a", 20) is fits  # 1.5 * 2 s * 20


def test_nothing_fits_after_the_deadline_even_if_nothing_is_known(hands: Hands) -> None:
    assert open_pace(hands, 0.1).fits("new", 1)
    assert not open_pace(hands, 0).fits("new", 1)


def test_a_model_that_has_not_run_counts_as_slow_as_the_slowest(hands: Hands) -> None:
    pace = open_pace(hands, 40)
    pace.note_pass("fast", 1, 1)
    pace.note_pass("slow", 1, 10)
    assert pace.fits("new", 2) and not pace.fits("new", 3)


def test_one_outlier_does_not_count_and_a_lasting_change_does(hands: Hands) -> None:
    pace = open_pace(hands, 100)
    for seconds in (1, 1, 1, 10):  # the process was stopped for nine seconds
        pace.note_pass("a", 1, seconds)
        pace.note_chunk(1, seconds)
        pace.note_choice(True, 1, seconds)
    assert (pace.seconds, pace.other(), pace.choose(True)) == ({"a": 1}, 1, 1)
    for _ in range(RECENT // 2):
        pace.note_pass("a", 1, 10)
    assert pace.seconds == {"a": 10}


def test_passes_may_take_what_other_work_and_the_choice_of_labels_leave(hands: Hands) -> None:
    pace = open_pace(hands, 1050)
    pace.note_chunk(4, 8)
    pace.note_choice(True, 4, 12)
    pace.note_choice(False, 4, 4)
    assert pace.allow(100, stacked=True) == pytest.approx(1050 / 100 / 1.05 - 2 - 3)
    assert pace.allow(100, stacked=False) == pytest.approx(1050 / 100 / 1.05 - 2 - 1)


def test_submissions_during_a_run_take_a_fiftieth_of_the_time(hands: Hands) -> None:
    pace = open_pace(hands, 10_000)
    pace.note_submission(10)
    hands.time += 499
    assert not pace.is_due()
    hands.time += 1
    assert pace.is_due()
    pace.note_submission(0.001)
    hands.time += SMALLEST_INTERVAL - 1
    assert not pace.is_due()
    hands.time += 1
    assert pace.is_due()
