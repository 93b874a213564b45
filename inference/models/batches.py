"""The search for the fastest batch size of a model on its device."""

TRIALS = 2  # per batch size; the fastest counts
FASTER = 0.95  # a smaller batch is used if its time per input is below this share of a larger one's


class BatchSizes:
    """The search for the fastest batch size that fits: each is tried on real batches, then the fastest is kept."""

    def __init__(self, largest: int, least: int = 1) -> None:
        """Try the largest size, its half and its quarter, but none below `least`; a size counts images times views."""
        self.limit = largest
        least = min(least, largest)
        self._seconds: dict[int, list[float]] = {max(largest // part, least): [] for part in (1, 2, 4)}

    def current(self) -> int:
        """Return the size for the next batch."""
        untried = [size for size, spent in self._seconds.items() if len(spent) < TRIALS]
        return untried[0] if untried else self.best()

    def best(self) -> int:
        """Return the fastest size so far; of nearly equal ones, the largest."""
        best, fastest = self.limit, float("inf")
        for size, spent in self._seconds.items():
            if spent and min(spent) < FASTER * fastest:
                best, fastest = size, min(spent)
        return best

    def note(self, size: int, seconds: float) -> None:
        """Record the seconds per input (one image in one view) in a batch of this size."""
        if len(self._seconds.get(size, ())) < TRIALS:
            self._seconds.setdefault(size, []).append(seconds)

    def halve(self) -> None:
        """Replace the current size and larger ones, which do not fit, by half of the current one."""
        self.limit = self.current() // 2
        self._seconds = {size: spent for size, spent in self._seconds.items() if size < self.limit}
        self._seconds = {self.limit: [], **self._seconds}
