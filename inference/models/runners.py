"""A model's session and what is done when its device does not play along."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import DeviceMemoryError, SessionError
from inference.basics.run_log import RunLog
from inference.manifest.values import Precision, View
from inference.models.precision import RIVALS, compare_sessions, judge_trial
from inference.models.sessions import CPU, ModelSession

TRIALS = 2  # of each batch size; the first of all warms the device up
FASTER = 0.95  # a smaller batch is taken where it needs less than this part of a larger one's time
LEAST = 2  # pictures for each lane, an image in two views: with less, some have nothing to do
DISTINCT_IMAGES = 4  # that many different pictures with one and the same answer: the model does not look


class BatchSizes:
    """Which of a few batch sizes is the fastest that fits: tried in turn on real work, then kept."""

    def __init__(self, largest: int, least: int = 1) -> None:
        """Tries the largest, its half and its quarter, but none below `least`.

        Sizes are in pictures, which are images times views.
        """
        self.limit = largest
        least = min(least, largest)
        self._seconds: dict[int, list[float]] = {max(largest // part, least): [] for part in (1, 2, 4)}

    def current(self) -> int:
        """The size for the next batch."""
        untried = [size for size, spent in self._seconds.items() if len(spent) < TRIALS]
        return untried[0] if untried else self.best()

    def best(self) -> int:
        """The fastest as far as is known; of about equals, the larger."""
        best, fastest = self.limit, float("inf")
        for size, spent in self._seconds.items():
            if spent and min(spent) < FASTER * fastest:
                best, fastest = size, min(spent)
        return best

    def note(self, size: int, seconds: float) -> None:
        """A picture took so long in a batch of this size."""
        if len(self._seconds.get(size, ())) < TRIALS:
            self._seconds.setdefault(size, []).append(seconds)

    def halve(self) -> None:
        """The current size does not fit: no more of it, nor of larger ones."""
        self.limit = self.current() // 2
        self._seconds = {size: spent for size, spent in self._seconds.items() if size < self.limit}
        self._seconds = {self.limit: [], **self._seconds}


class Runner:
    """One model, wherever it can run, in the precision that suits the place."""

    def __init__(
        self,
        open_session: Callable[[int, Precision], ModelSession],
        gpus: int,
        largest: int,
        log: RunLog,
        precision: Precision = "fp32",
        rivals: Mapping[Precision, float] | None = None,
    ) -> None:
        """`open_session`: of the model, on so many GPUs, in a precision; `largest`: most images of a batch.

        `precision`: the one to begin with; `rivals`: the parity of each that may take its place (see `settle`). Raises
        SessionError.
        """
        self._open, self._gpus, self._largest, self._log = open_session, gpus, largest, log
        self.precision, self._rivals = precision, dict(rivals or {})
        self._tried: ModelSession | None = None
        try:
            self.session = open_session(gpus, precision)
        except SessionError as error:
            if precision != "fp32":
                self._log.note_degraded(f"{error}: this model runs in fp32")
                self.precision = "fp32"
                self.session = open_session(gpus, "fp32")
            elif not gpus:
                raise
            else:
                self._leave_gpu(error)
        self.batches = self._list_batches()

    @property
    def is_settled(self) -> bool:
        """Whether the precision stays as it is."""
        return not self._rivals

    def settle(self, batch: NDArray[np.uint8], has_time: bool = True) -> float:
        """Keep the faster of the precision so far and the rival that suits the provider; seconds that this took.

        The first call decides, with a trial on the batch (images, height, width, 3) where `has_time` is left for it;
        later ones do nothing.
        """
        started = time.perf_counter()
        rival = RIVALS.get(self.session.provider)
        parity = self._rivals.get(rival) if rival else None
        self._rivals = {}
        if rival and parity is not None and has_time:
            try:
                self._try_rival(rival, parity, batch[: self._largest])
            except SessionError as error:
                self._log.note(f"{error}: this model stays in {self.precision}")
            self._tried = None
        return time.perf_counter() - started

    def stop(self) -> None:
        """End the batch in flight, from another thread, and every later one: `predict` raises SessionError."""
        for session in (self.session, self._tried):
            if session:
                session.stop()

    def predict(self, batch: NDArray[np.uint8], views: Sequence[View]) -> NDArray[np.float32]:
        """As ModelSession.predict, of any number of images, in batches that fit.

        Where memory does not suffice, the batch is halved; where one image does not fit, the GPU is left for the CPU.
        Raises SessionError where that does not help, and where the answer is the same whatever the picture.
        """
        while True:
            size = self.batches.current()
            if len(views) > size:  # one by one, then: not even an image in all of them fits
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
                    self._log.note(f"{error}: goes on with batches of {self.batches.current()}")
                    continue
                if self.session.provider == CPU:
                    raise
                self._leave_gpu(error)
                continue
            shown = len(batch) * len(views)
            if shown >= self._largest:  # more are tiles
                self.batches.note(size, (time.perf_counter() - started) / shown)
            probabilities = np.concatenate(parts)
            self._check_variety(batch, probabilities)
            return probabilities

    def _try_rival(self, rival: Precision, parity: float, batch: NDArray[np.uint8]) -> None:
        self._tried = session = self._open(self._gpus, rival)
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
        self._log.note(f"model {session.name}: runs in {self.precision}, as {reason}")

    def _leave_gpu(self, error: SessionError) -> None:
        self._log.note_degraded(f"{error}: this model leaves the GPU and runs on the CPU")
        self.precision = "fp32" if self.precision == "fp16" else self.precision  # fp16 gains nothing on a CPU
        self._gpus = 0
        self.session = self._open(0, self.precision)
        self.batches = self._list_batches()

    def _list_batches(self) -> BatchSizes:
        return BatchSizes(self._largest, LEAST * self.session.lanes)

    def _check_variety(self, batch: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> None:
        if len(batch) >= DISTINCT_IMAGES and (probabilities == probabilities[0]).all():
            distinct = len({picture.tobytes() for picture in batch})
            if distinct >= DISTINCT_IMAGES:
                raise SessionError(
                    f"model {self.session.name}: gives {distinct} different images one and the same answer"
                )
