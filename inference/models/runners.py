"""Running one model, with fallbacks when its device fails: smaller batches, fp32, then the CPU."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import DeviceLostError, DeviceMemoryError, SessionError
from inference.basics.run_log import RunLog
from inference.manifest.values import Precision, View
from inference.models.batches import BatchSizes
from inference.models.gpus import Gpus
from inference.models.precision import RIVALS, compare_sessions, judge_trial
from inference.models.sessions import CUDA, ModelSession
from inference.models.views import merge_views

LEAST = 2  # inputs per lane (one image in two views); with fewer, some lanes would idle
DISTINCT_IMAGES = 4  # if this many different images get the same scores, the model ignores its input
Result = TypeVar("Result")


class Runner:
    """One model on the devices where it can run, in a precision chosen for them."""

    def __init__(
        self,
        open_session: Callable[[int, Precision], ModelSession],
        gpus: Gpus,
        largest: int,
        log: RunLog,
        precision: Precision = "fp32",
        rivals: Mapping[Precision, float] | None = None,
    ) -> None:
        """`open_session`: opens the model on a number of GPUs in a precision; `largest`: upper limit of the batch size.

        `gpus`: shared by all models; `precision`: the first one; `rivals`: parity of each precision that may replace it
        (see `settle`). Raises SessionError.
        """
        self._open, self._gpus, self._largest, self._log = open_session, gpus, largest, log
        self.precision, self._rivals = precision, dict(rivals or {})
        self._candidate: ModelSession | None = None
        self._on_gpus, self._stopped = True, False
        self.session: ModelSession
        self._open_session()

    @property
    def is_settled(self) -> bool:
        """Return whether the precision is final."""
        return not self._rivals

    def settle(self, batch: NDArray[np.uint8], has_time: bool = True) -> float:
        """Choose between the current precision and the provider's rival; return the seconds that this took.

        The first call decides, by a trial on the batch (images, height, width, 3) if `has_time`; later calls do
        nothing.
        """
        if self._is_lost():  # the next call decides, on the CPU
            return 0.0
        started = time.perf_counter()
        rival = RIVALS.get(self.session.provider)
        parity = self._rivals.get(rival) if rival else None
        self._rivals = {}
        if rival and parity is not None and has_time:
            try:
                self._try_rival(rival, parity, batch[: self._largest])
            except SessionError as error:
                if isinstance(error, DeviceLostError) and self.session.provider == CUDA:
                    self._gpus.give_up(error)
                    self._gpus.keep(self._candidate)
                elif not self._stopped:
                    self._log.note(f"{error}; this model stays in {self.precision}")
            self._candidate = None
        return time.perf_counter() - started

    def warm_up(self, batch: NDArray[np.uint8], views: Sequence[View]) -> float:
        """Prepare `predict` of the same arguments, whose first call is slow; return the seconds that this took.

        Runs nothing if a batch of this size has run. Falls back, and raises SessionError, as `predict` does.
        """

        def work() -> None:
            shown, images = self._fit(views)
            self.session.warm_up(batch[:images], shown, images)

        started = time.perf_counter()
        self._fall_back_until_done(work)
        return time.perf_counter() - started

    def predict(self, batch: NDArray[np.uint8], views: Sequence[View]) -> NDArray[np.float32]:
        """Predict as ModelSession.predict does, for any number of images, in batches that fit.

        Out of memory, the batch is halved; if one image does not fit the GPU, or the model fails there, it moves to the
        CPU; if the GPU is lost, all models do. Raises SessionError: the fallbacks fail too, the model was stopped, or
        different images get the same scores.
        """
        probabilities = self._fall_back_until_done(lambda: self._predict(batch, views))
        if len(batch) >= DISTINCT_IMAGES and (probabilities == probabilities[0]).all():
            distinct = len({picture.tobytes() for picture in batch})
            if distinct >= DISTINCT_IMAGES:
                raise SessionError(f"model {self.session.name}: gives {distinct} different images the same scores")
        return probabilities

    def stop(self) -> None:
        """Interrupt the current batch, from another thread, and refuse later ones: `predict` raises SessionError."""
        self._stopped = True  # first: a session that is being opened is stopped by the thread that opens it
        for session in (self.session, self._candidate):
            if session:
                session.stop()

    def _predict(self, batch: NDArray[np.uint8], views: Sequence[View]) -> NDArray[np.float32]:
        shown, images = self._fit(views)
        if len(shown) < len(views):
            return merge_views([(1, self._predict(batch, (view,))) for view in views], self.session.merge)
        size, inputs = self.batches.current(), len(batch) * len(views)
        started = time.perf_counter()
        parts = [self.session.predict(batch[at : at + images], views, images) for at in range(0, len(batch), images)]
        if inputs >= self._largest:  # more than that only with tiles
            self.batches.note(size, (time.perf_counter() - started) / inputs)
        return np.concatenate(parts)

    def _fit(self, views: Sequence[View]) -> tuple[Sequence[View], int]:
        """Return the views to run in one batch, and the images of that batch.

        One view at a time if one image in all views does not fit.
        """
        size = self.batches.current()
        return (views, size // len(views)) if len(views) <= size else (views[:1], size)

    def _fall_back_until_done(self, work: Callable[[], Result]) -> Result:
        while True:
            if self._is_lost():
                self._gpus.keep(self.session)
                self._move_to_cpu()
            try:
                return work()
            except SessionError as error:
                if self._stopped:
                    raise
                self._fall_back(error)

    def _is_lost(self) -> bool:
        """Return whether the session is on a GPU that was lost, maybe by another model."""
        return self.session.provider == CUDA and not self._gpus.count

    def _fall_back(self, error: SessionError) -> None:
        """Change what may have failed. Raises the error: nothing is left to change."""
        on_gpu, no_memory = self.session.provider == CUDA, isinstance(error, DeviceMemoryError)
        if no_memory and self.batches.current() > 1:
            self.batches.halve()
            self._log.note(f"{error}; continues with batches of {self.batches.current()}")
        elif isinstance(error, DeviceLostError) and on_gpu:
            self._gpus.give_up(error)
        elif self.precision != "fp32" and not no_memory:
            self._return_to_fp32(error)
            self._open_session()
        elif on_gpu:
            self._note_cpu(error)
            self._move_to_cpu()
        else:
            raise error

    def _try_rival(self, rival: Precision, parity: float, batch: NDArray[np.uint8]) -> None:
        self._candidate = session = self._open(self._count_gpus(), rival)
        if self._stopped:
            session.stop()
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

    def _count_gpus(self) -> int:
        return self._gpus.count if self._on_gpus else 0

    def _move_to_cpu(self) -> None:
        self.precision = "fp32" if self.precision == "fp16" else self.precision  # fp16 is not faster on a CPU
        self._on_gpus = False
        self._open_session()

    def _open_session(self) -> None:
        """Open the model, in fp32 or on the CPU if it does not load otherwise. Raises SessionError."""
        while True:
            gpus = self._count_gpus()
            try:
                self.session = self._open(gpus, self.precision)
                break
            except SessionError as error:
                if isinstance(error, DeviceLostError) and gpus:
                    self._gpus.give_up(error)
                elif self.precision != "fp32":
                    self._return_to_fp32(error)
                elif gpus:
                    self._note_cpu(error)
                    self._on_gpus = False
                else:
                    raise
        if self._stopped:
            self.session.stop()
        self.batches = BatchSizes(self._largest, LEAST * self.session.lanes)

    def _return_to_fp32(self, error: SessionError) -> None:
        self._log.note_degraded(f"{error}; this model runs in fp32")
        self.precision = "fp32"

    def _note_cpu(self, error: SessionError) -> None:
        self._log.note_degraded(f"{error}; this model runs on the CPU instead of the GPU")
