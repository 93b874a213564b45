"""The time that is left and the measured speed of the models: the input of plans. Tests replace the clock."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from inference.basics.errors import OptionError

RECENT_PASSES = 8  # a model's speed is the median of these, so that one slow pass does not count
LATEST_PASSES = 3  # the slowest of these is the estimate for one more pass
# A pass may be slower than the slowest of the last ones: other load on the machine, larger images.
PASS_MARGIN = 1.5
PLAN_MARGIN = 1.05  # without it, the first delay would exceed the plan
RESTORE_MARGIN = 1.15  # without it, the same passes would be dropped and restored again and again
# For the difference between a measurement on a part of the images, or on shorter rows, and the whole.
RESERVE_MARGIN = 2.0
SMALLEST_RESERVE = 1.0  # seconds, for what is not measured, above all the exit of the interpreter
# Submissions during the run take at most 1/50 of the time, at intervals of at least so many seconds.
SUBMISSION_SHARE = 50
SMALLEST_INTERVAL = 60.0


@dataclass(frozen=True)
class Clock:
    """The time limit, in seconds of a monotonic clock."""

    started: float
    limit: float
    """Counted from `started`."""
    now: Callable[[], float]

    def left(self) -> float:
        """Return the seconds before the time limit; negative after it."""
        return self.started + self.limit - self.now()


def find_start(started_at: float | None, now: Callable[[], float], wall: Callable[[], float] = time.time) -> float:
    """Return the start of the kernel on the clock `now`; `started_at`: seconds since 1970 (default: this moment).

    Raises OptionError: `started_at` is in the future.
    """
    if started_at is None:
        return now()
    elapsed = wall() - started_at
    if elapsed < -1:
        found = f"{started_at:.0f}, {-elapsed:.0f} s in the future"
        raise OptionError(f"--started-at: found {found}; wanted a time in the past")
    return now() - max(elapsed, 0.0)


def estimate_reserve(decide_seconds: float, decided: int, images: int, write_seconds: float) -> float:
    """Estimate the seconds to reserve for selecting labels, writing and checking the submission.

    `decide_seconds`: measured on `decided` images; `write_seconds`: of the first submission.
    """
    return SMALLEST_RESERVE + RESERVE_MARGIN * (decide_seconds / decided * images + 2 * write_seconds)


class Pace:
    """Measured seconds of each model's passes and of all other work, and the time left for further passes."""

    def __init__(self, clock: Clock, reserve: float) -> None:
        """`reserve`: seconds kept for selecting labels and writing the submission."""
        self.clock, self.reserve = clock, reserve
        self._passes: dict[str, deque[float]] = {}
        self._others: deque[float] = deque(maxlen=RECENT_PASSES)
        self._submitted, self._submission = clock.now(), 0.0

    @property
    def seconds(self) -> dict[str, float]:
        """Return the seconds per view and image of each model that has run."""
        return {model: median(recent) for model, recent in self._passes.items()}

    @property
    def overhead(self) -> float:
        """Return the seconds per image outside its passes: waiting for the decoder, saving."""
        return median(self._others) if self._others else 0.0

    def note_pass(self, model: str, images: int, seconds: float) -> None:
        """Record the seconds of one view of some images."""
        self._passes.setdefault(model, deque(maxlen=RECENT_PASSES)).append(seconds / images)

    def note_chunk(self, images: int, seconds: float) -> None:
        """Record the seconds of a chunk outside its passes."""
        self._others.append(max(seconds, 0.0) / images)

    def note_submission(self, seconds: float) -> None:
        """Record the seconds of selecting labels, writing and checking; they may raise the reserve."""
        self.reserve = max(self.reserve, SMALLEST_RESERVE + RESERVE_MARGIN * seconds)
        self._submitted, self._submission = self.clock.now(), seconds

    def left(self) -> float:
        """Return the seconds left for further passes."""
        return self.clock.left() - self.reserve

    def fits(self, model: str, images: int) -> bool:
        """Return whether one more pass fits, estimated by the slowest of the last few and a margin.

        A model that has not run yet counts as slow as the slowest that has.
        """
        known = [self._passes[model]] if model in self._passes else list(self._passes.values())
        slowest = max((seconds for recent in known for seconds in list(recent)[-LATEST_PASSES:]), default=0.0)
        left = self.left()
        return left > 0 and PASS_MARGIN * slowest * images <= left

    def allow(self, images: int) -> float:
        """Return the seconds per image that all its passes together may take, for the remaining `images`."""
        return self.left() / images / PLAN_MARGIN - self.overhead

    def is_due(self) -> bool:
        """Return whether it is time to write another submission during the run."""
        interval = max(SMALLEST_INTERVAL, SUBMISSION_SHARE * self._submission)
        return self.clock.now() - self._submitted >= interval
