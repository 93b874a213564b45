"""The measured speed of a run and the time that is left for it: the input of plans."""

from collections import deque
from statistics import median

from inference.basics.deadline import Deadline

# A speed is the median of so many measurements: one outlier does not count, a lasting change soon does.
RECENT = 5
PASS_MARGIN = 1.5  # a pass may be slower than the median: other load on the machine, larger images
PLAN_MARGIN = 1.05  # without it, the first delay would exceed the plan
RESTORE_MARGIN = 1.15  # without it, the same passes would be dropped and restored again and again
RESERVE_MARGIN = 2.0  # for the difference between one submission and a later one
SMALLEST_RESERVE = 1.0  # seconds, for what is not measured, above all the exit of the interpreter
# Submissions during the run take at most 1/50 of the time, at intervals of at least so many seconds.
SUBMISSION_SHARE = 50
SMALLEST_INTERVAL = 60.0


class Pace:
    """Measured seconds of each model's passes, of selecting labels and of all other work, and the time left."""

    def __init__(self, deadline: Deadline) -> None:
        """`deadline`: of the whole run; the end of the run is kept free in `left`."""
        self.deadline = deadline
        self.reserve = SMALLEST_RESERVE
        self._passes: dict[str, deque[float]] = {}
        self._others: deque[float] = deque(maxlen=RECENT)
        self._choices: dict[bool, deque[float]] = {one: deque(maxlen=RECENT) for one in (False, True)}
        self._submitted, self._submission = deadline.now(), 0.0

    @property
    def seconds(self) -> dict[str, float]:
        """Return the seconds per view and image of each model that has run."""
        return {model: median(recent) for model, recent in self._passes.items()}

    def note_pass(self, model: str, images: int, seconds: float) -> None:
        """Record the seconds of one view of some images."""
        self._passes.setdefault(model, deque(maxlen=RECENT)).append(seconds / images)

    def note_choice(self, stacked: bool, images: int, seconds: float) -> None:
        """Record the seconds of selecting labels, with the stackers or by the blend alone."""
        self._choices[stacked].append(seconds / images)

    def note_chunk(self, images: int, seconds: float) -> None:
        """Record the seconds of a chunk outside its passes and choices: waiting for the decoder, saving."""
        self._others.append(max(seconds, 0.0) / images)

    def note_submission(self, seconds: float) -> None:
        """Record the seconds of writing and checking a submission; they set the reserve for the last one."""
        self.reserve = SMALLEST_RESERVE + RESERVE_MARGIN * seconds
        self._submitted, self._submission = self.deadline.now(), seconds

    def left(self) -> float:
        """Return the seconds left before the last submission must be written."""
        return self.deadline.left() - self.reserve

    def choose(self, stacked: bool) -> float:
        """Return the seconds per image of selecting labels; 0 before the first measurement."""
        return median(self._choices[stacked]) if self._choices[stacked] else 0.0

    def other(self) -> float:
        """Return the seconds per image outside of passes and choices."""
        return median(self._others) if self._others else 0.0

    def fits(self, model: str, images: int) -> bool:
        """Return whether one more pass fits; a model that has not run yet counts as slow as the slowest that has."""
        seconds = self.seconds
        expected = seconds.get(model, max(seconds.values(), default=0.0))
        left = self.left()
        return left > 0 and PASS_MARGIN * expected * images <= left

    def allow(self, images: int, stacked: bool) -> float:
        """Return the seconds per image that all its passes together may take, for the remaining `images`."""
        return self.left() / images / PLAN_MARGIN - self.other() - self.choose(stacked)

    def is_due(self) -> bool:
        """Return whether it is time to write another submission during the run."""
        interval = max(SMALLEST_INTERVAL, SUBMISSION_SHARE * self._submission)
        return self.deadline.now() - self._submitted >= interval
