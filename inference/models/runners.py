"""Running one model, with fallbacks when its device fails: smaller batches, then the CPU."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import DeviceMemoryError, SessionError
from inference.basics.run_log import RunLog
from inference.manifest.values import Precision, View
from inference.models.precision import RIVALS, compare_sessions, judge_trial
from inference.models.sessions import CPU, ModelSession

TRIALS = 2  # per batch size; the first of all warms up the device
FASTER = 0.95  # a smaller batch is used if its time per input is below this share of a larger one's
LEAST = 2  # inputs per lane (one image in two views); with fewer, some lanes would idle
DISTINCT_IMAGES = 4  # if this many different images get the same scores, the model ignores its input


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


class Runner:
    """One model on the devices where it can run, in a precision chosen for them."""

    def __init__(
        self,
        open_session: Callable[[int, Precision], ModelSession],
        gpus: int,
        largest: int,
        log: RunLog,
        precision: Precision = "fp32",
        rivals: Mapping[Precision, float] | None = None,
    ) -> None:
        """`open_session`: opens the model on a number of GPUs in a precision; `largest`: upper limit of the batch size.

        `precision`: the first one; `rivals`: parity of each precision that may replace it (see `settle`). Raises
        SessionError.
        """
        self._open, self._gpus, self._largest, self._log = open_session, gpus, largest, log
        self.precision, self._rivals = precision, dict(rivals or {})
        self._candidate: ModelSession | None = None
        try:
            self.session = open_session(gpus, precision)
        except SessionError as error:
            if precision != "fp32":
                self._log.note_degraded(f"{error}; this model runs in fp32")
                self.precision = "fp32"
                self.session = open_session(gpus, "fp32")
            elif not gpus:
                raise
            else:
                self._move_to_cpu(error)
        self.batches = self._list_batches()

    @property
    def is_settled(self) -> bool:
        """Return whether the precision is final."""
        return not self._rivals

    def settle(self, batch: NDArray[np.uint8], has_time: bool = True) -> float:
        """Choose between the current precision and the provider's rival; return the seconds that this took.

        The first call decides, by a trial on the batch (images, height, width, 3) if `has_time`; later calls do
        nothing.
        """
        started = time.perf_counter()
        rival = RIVALS.get(self.session.provider)
        parity = self._rivals.get(rival) if rival else None
        self._rivals = {}
        if rival and parity is not None and has_time:
            try:
                self._try_rival(rival, parity, batch[: self._largest])
            except SessionError as error:
                self._log.note(f"{error}; this model stays in {self.precision}")
            self._candidate = None
        return time.perf_counter() - started

    def stop(self) -> None:
        """Interrupt the current batch, from another thread, and refuse later ones: `predict` raises SessionError."""
        for session in (self.session, self._candidate):
            if session:
                session.stop()

    def predict(self, batch: NDArray[np.uint8], views: Sequence[View]) -> NDArray[np.float32]:
        """Predict as ModelSession.predict does, for any number of images, in batches that fit.

        Out of memory, the batch is halved; if one image does not fit the GPU, the model moves to the CPU. Raises
        SessionError: the fallbacks fail too, or different images get the same scores.
        """
        while True:
            size = self.batches.current()
            if len(views) > size:  # one image in all views does not fit: one view at a time
                mean: NDArray[np.float32] = np.mean([self.predict(batch, (view,)) for view in views], axis=0)
                return mean
            images = size // len(views)
            started = time.perf_counter()
            try:
                parts = [
                    self.session.predict(batch[at : at + images], views, images) for at in range(0, len(batch), images)
                ]
            except DeviceMemoryError as error:
                if size > 1:
                    self.batches.halve()
                    self._log.note(f"{error}; continues with batches of {self.batches.current()}")
                    continue
                if self.session.provider == CPU:
                    raise
                self._move_to_cpu(error)
                continue
            shown = len(batch) * len(views)
            if shown >= self._largest:  # more than that only with tiles
                self.batches.note(size, (time.perf_counter() - started) / shown)
            probabilities = np.concatenate(parts)
            self._check_variety(batch, probabilities)
            return probabilities

    def _try_rival(self, rival: Precision, parity: float, batch: NDArray[np.uint8]) -> None:
        self._candidate = session = self._open(self._gpus, rival)
        while True:
            try:
                trial = compare_sessions(self.session, session, batch)
                break
            except DeviceMemoryError:
                if len(batch) == 1:
                    raise
                batch = batch[: len(batch) // 2]
        is_better, reason = judge_trial(trial, rival, parity)
        if is_better:
            self.session, self.precision = session, rival
        self._log.note(f"model {session.name}: runs in {self.precision}: {reason}")

    def _move_to_cpu(self, error: SessionError) -> None:
        self._log.note_degraded(f"{error}; this model runs on the CPU instead of the GPU")
        self.precision = "fp32" if self.precision == "fp16" else self.precision  # fp16 is not faster on a CPU
        self._gpus = 0
        self.session = self._open(0, self.precision)
        self.batches = self._list_batches()

    def _list_batches(self) -> BatchSizes:
        return BatchSizes(self._largest, LEAST * self.session.lanes)

    def _check_variety(self, batch: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> None:
        if len(batch) >= DISTINCT_IMAGES and (probabilities == probabilities[0]).all():
            distinct = len({picture.tobytes() for picture in batch})
            if distinct >= DISTINCT_IMAGES:
                raise SessionError(f"model {self.session.name}: gives {distinct} different images the same scores")
