import pytest

from inference.basics.errors import OptionError
from inference.run.budget import SMALLEST_INTERVAL, Clock, Pace, estimate_reserve, find_start


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_the_limit_counts_from_the_kernels_start() -> None:
    now = Hands()
    assert find_start(None, now) == 1000
    started = find_start(5000.0, now, wall=lambda: 5030.0)
    assert Clock(started, 100, now).left() == pytest.approx(70)
    now.time += 80
    assert Clock(started, 100, now).left() == pytest.approx(-10)


def test_a_start_in_the_future_is_refused_with_one_second_of_tolerance_between_clocks() -> None:
    assert find_start(5000.0, Hands(), wall=lambda: 4999.5) == 1000
    with pytest.raises(OptionError, match=r"^--started-at: found 5000, 20 s in the future; wanted a time in the past$"):
        find_start(5000.0, Hands(), wall=lambda: 4980.0)


def test_the_reserve_grows_with_the_number_of_images() -> None:
    assert estimate_reserve(0.1, 100, 1000, 0.5) == pytest.approx(1 + 2 * (1.0 + 1.0))


@pytest.mark.parametrize(
    ("seconds_left", "passes", "fits"),
    [
        (15.1, [1.0], True),  # 1.5 x 10 images of one second
        (14.9, [1.0], False),
        (15.1, [3.0, 1.0, 1.0, 1.0], True),  # a slow pass counts for three passes only
        (15.1, [1.0, 1.0, 3.0], False),  # a slow pass counts at once
        (0.1, [], True),  # the first pass always runs, to measure
        (-0.1, [], False),
        (-0.1, [1e-6], False),
    ],
)
def test_a_pass_fits_when_the_slowest_of_the_last_three_leaves_the_reserve(
    seconds_left: float, passes: list[float], fits: bool
) -> None:
    pace = Pace(Clock(1000, seconds_left + 7, Hands()), reserve=7)
    for seconds in passes:
        pace.note_pass("slow", 10, 10 * seconds)
    assert pace.fits("slow", 10) is fits


def test_a_model_that_has_not_run_counts_as_slow_as_the_slowest_that_has() -> None:
    pace = Pace(Clock(1000, 16, Hands()), reserve=0)
    pace.note_pass("fast", 1, 0.1)
    assert pace.fits("new", 10)
    pace.note_pass("slow", 1, 1.1)
    assert not pace.fits("new", 10) and pace.fits("fast", 10)


def test_the_time_allowed_per_image_excludes_the_reserve_and_other_work() -> None:
    pace = Pace(Clock(1000, 1060, Hands()), reserve=10)
    assert pace.allow(100) == pytest.approx(10)  # 1050 s for 100 images, with a margin of 5 %
    pace.note_chunk(10, 20)
    pace.note_chunk(10, 40)
    assert pace.allow(100) == pytest.approx(10 - 3)
    assert pace.seconds == {}


def test_the_reserve_grows_with_the_seconds_of_a_submission_and_never_shrinks() -> None:
    pace = Pace(Clock(1000, 100, Hands()), reserve=5)
    pace.note_submission(1)
    assert pace.reserve == 5
    pace.note_submission(10)
    assert pace.reserve == 21


def test_submissions_during_the_run_take_a_fiftieth_of_the_time_at_most() -> None:
    now = Hands()
    pace = Pace(Clock(1000, 9000, now), reserve=0)
    now.time += SMALLEST_INTERVAL - 1
    assert not pace.is_due()
    now.time += 1
    assert pace.is_due()
    pace.note_submission(10)
    now.time += 499
    assert not pace.is_due()
    now.time += 1
    assert pace.is_due()
