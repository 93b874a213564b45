"""The deadline of a run: the one clock that every wait asks."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Deadline:
    """The moment by which the work must end: `limit` seconds after `started`, less `kept` seconds for what follows."""

    started: float
    """By `now`. Linux has one monotonic clock for all processes, which no change of the date moves."""
    limit: float
    """Seconds."""
    kept: float = 0.0
    """Seconds."""
    now: Callable[[], float] = time.monotonic
    """Tests replace it."""

    def spent(self) -> float:
        """Return the seconds since the start."""
        return self.now() - self.started

    def left(self) -> float:
        """Return the seconds before the deadline; negative after it."""
        return self.limit - self.kept - self.spent()

    def keep(self, seconds: float) -> "Deadline":
        """Return an earlier deadline, which leaves `seconds` for the work after it."""
        return replace(self, kept=self.kept + seconds)
