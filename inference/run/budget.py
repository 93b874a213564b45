"""The time that is left, and how fast this machine is: what plans are made from. Whoever tests it drives the clock."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from inference.basics.errors import OptionError

RECENT_PASSES = 8  # the median of these is a model's pace: one that stood still for a moment is not slow
LATEST_PASSES = 3  # the slowest of these is what one more pass may take
# A pass may be slower than the slowest of the last ones: other work on the machine, larger images.
PASS_MARGIN = 1.5
PLAN_MARGIN = 1.05  # a plan made to the second would slip at once
RETURN_MARGIN = 1.15  # what was dropped returns only with some air, or it would come and go
# What was measured on a part, or on shorter rows, may be off by this factor.
RESERVE_MARGIN = 2.0
SMALLEST_RESERVE = 1.0  # seconds, for what is not measured: leaving the interpreter, above all
# Better submissions along the way take at most a fiftieth of the time, and are not written every moment.
SUBMISSION_SHARE = 50
SMALLEST_INTERVAL = 60.0


@dataclass(frozen=True)
class Clock:
    """When the limit is reached, on a clock that never jumps; seconds."""

    started: float
    limit: float
    now: Callable[[], float]

    def left(self) -> float:
        """Seconds before the limit; negative after it."""
        return self.started + self.limit - self.now()


def find_start(started_at: float | None, now: Callable[[], float], wall: Callable[[], float] = time.time) -> float:
    """When the kernel started, on the clock `now`; `started_at` in seconds since 1970, None for this moment.

    Raises OptionError where that is still to come.
    """
    if started_at is None:
        return now()
    elapsed = wall() - started_at
    if elapsed < -1:
        raise OptionError(f"--started-at: found {started_at:.0f}, {-elapsed:.0f} s from now; wanted a time in the past")
    return now() - max(elapsed, 0.0)


def estimate_reserve(decide_seconds: float, decided: int, images: int, write_seconds: float) -> float:
    """Seconds to keep for the end: deciding `images` images at the rate of `decided` ones, writing, and checking.

    `write_seconds`: what writing the prior's submission took.
    """
    return SMALLEST_RESERVE + RESERVE_MARGIN * (decide_seconds / decided * images + 2 * write_seconds)


class Pace:
    """Seconds of each model's passes and of all else, as measured so far, against the clock less a reserve."""

    def __init__(self, clock: Clock, reserve: float) -> None:
        """`reserve`: seconds to keep for deciding and writing."""
        self.clock, self.reserve = clock, reserve
        self._passes: dict[str, deque[float]] = {}
        self._others: deque[float] = deque(maxlen=RECENT_PASSES)
        self._submitted, self._submission = clock.now(), 0.0

    @property
    def seconds(self) -> dict[str, float]:
        """By model that has run: seconds of one view of one image."""
        return {model: median(recent) for model, recent in self._passes.items()}

    @property
    def overhead(self) -> float:
        """Seconds of an image beside its passes: waiting for it to be decoded, committing it."""
        return median(self._others) if self._others else 0.0

    def note_pass(self, model: str, images: int, seconds: float) -> None:
        """One view of so many images took so long."""
        self._passes.setdefault(model, deque(maxlen=RECENT_PASSES)).append(seconds / images)

    def note_chunk(self, images: int, seconds: float) -> None:
        """A chunk took so long beside its passes."""
        self._others.append(max(seconds, 0.0) / images)

    def note_submission(self, seconds: float) -> None:
        """Deciding, writing and checking a submission took so long; the reserve never shrinks."""
        self.reserve = max(self.reserve, SMALLEST_RESERVE + RESERVE_MARGIN * seconds)
        self._submitted, self._submission = self.clock.now(), seconds

    def left(self) -> float:
        """Seconds for further passes."""
        return self.clock.left() - self.reserve

    def fits(self, model: str, images: int) -> bool:
        """Whether one more pass fits, as slow as the slowest of the last few, with a margin.

        A model that has not run yet is taken to be as slow as the slowest that has.
        """
        known = [self._passes[model]] if model in self._passes else list(self._passes.values())
        slowest = max((seconds for recent in known for seconds in list(recent)[-LATEST_PASSES:]), default=0.0)
        left = self.left()
        return left > 0 and PASS_MARGIN * slowest * images <= left

    def allow(self, images: int) -> float:
        """Seconds that the passes of each of so many images may take."""
        return self.left() / images / PLAN_MARGIN - self.overhead

    def is_due(self) -> bool:
        """Whether it is time for a better submission along the way."""
        interval = max(SMALLEST_INTERVAL, SUBMISSION_SHARE * self._submission)
        return self.clock.now() - self._submitted >= interval
