"""Reading of images in threads ahead of their use, with a time limit per image: no file can block the run."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Lock, Thread
from typing import Generic, TypeVar

from inference.basics.cores import count_cores
from inference.basics.errors import ImageError, ImageMemoryError, LateError

CHUNKS_AHEAD = 2  # keeps the sessions busy and the memory constant
# Upper limit of abandoned threads at a time, since each may occupy a core and the memory of an image.
MOST_ABANDONED = 32
Read = TypeVar("Read")


def decode_ahead(
    paths: Sequence[Path | None],
    read: Callable[[Path], Read],
    size: int,
    image_seconds: float,
    left: Callable[[], float] = lambda: math.inf,
) -> Generator[tuple[int, list[Read | ImageError]], None, None]:
    """Yield chunks of `size` images as (index of the first, result of `read` or ImageError for each).

    An image that takes longer than `image_seconds`, counted from the start of its own reading, gives an ImageError.
    `left`: seconds before the deadline, asked for at every wait; each image that is not read by then gives a LateError.
    Reads that ran out of memory are retried once. Other errors of `read` are raised here. Raises MemoryError: no thread
    can be started.
    """
    starts = iter(range(0, len(paths), size))
    pending: deque[tuple[int, list[_Job[Read]]]] = deque()
    with closing(_Decoders(read, image_seconds, count_cores(), left)) as decoders:
        while True:
            while len(pending) <= CHUNKS_AHEAD and (start := next(starts, None)) is not None:
                pending.append((start, [decoders.submit(path) for path in paths[start : start + size]]))
            if not pending:
                return
            start, jobs = pending.popleft()
            yield start, [decoders.wait(job) for job in jobs]


def start_thread(thread: Thread) -> None:
    """Start a thread. Raises MemoryError: the system has no thread left, or no memory for its stack."""
    try:
        thread.start()
    except RuntimeError as error:
        raise MemoryError(f"no thread for the {thread.name}: {error}") from error


@dataclass(eq=False)
class _Job(Generic[Read]):
    """The reading of one image."""

    path: Path
    began: float = 0.0
    """Start by time.monotonic(); 0 while the image waits."""
    outcome: Read | Exception | None = None


class _Decoders(Generic[Read]):
    """Threads that read images. A thread cannot be killed, so a stuck one is abandoned and replaced.

    The threads are daemons, unlike those of ThreadPoolExecutor: the process ends without waiting for them.
    """

    def __init__(self, read: Callable[[Path], Read], seconds: float, threads: int, left: Callable[[], float]) -> None:
        self._read, self._seconds, self._threads, self._left = read, seconds, threads, left
        self._alone = Lock()  # held by the one image that is retried
        self._lock = Lock()  # guards the attributes below and the outcomes of jobs
        self._queued = Condition(self._lock)  # threads wait here for an image
        self._finished = Condition(self._lock)  # `wait` waits here for an outcome
        self._queue: deque[_Job[Read]] = deque()
        self._reading: set[_Job[Read]] = set()
        self._workers = self._abandoned = 0
        self._closed = False
        with self._lock:
            self._fill_up()
        if not self._workers:
            raise MemoryError("cannot start a thread to read images")

    def submit(self, path: Path | None) -> _Job[Read]:
        """Queue an image; None stands for a missing file."""
        if path is None:
            return _Job(Path(), outcome=ImageError("no such file in the folder"))
        job: _Job[Read] = _Job(path)
        with self._lock:
            self._queue.append(job)
            self._queued.notify()
        return job

    def wait(self, job: _Job[Read]) -> Read | ImageError:
        """Wait for a job, not past the deadline, and return its outcome; abandon every image whose time is over."""
        with self._lock:
            while job.outcome is None:
                now = time.monotonic()
                for late in [reading for reading in self._reading if now - reading.began >= self._seconds]:
                    self._abandon(late)
                if job.outcome is None and self._is_over():
                    job.outcome = LateError(f"{job.path.name}: not read before the deadline")
                elif job.outcome is None and not self._workers:
                    job.outcome = ImageError(f"not read: {self._abandoned} earlier images still block all decoders")
                elif job.outcome is None:
                    # Images that start later also time out later.
                    first = min((reading.began for reading in self._reading), default=now)
                    self._finished.wait(max(min(first + self._seconds - now, self._left()), 0))
            outcome = job.outcome
        if isinstance(outcome, Exception) and not isinstance(outcome, ImageError):
            raise outcome
        return outcome

    def close(self) -> None:
        """End every wait at once, and every thread after its current image, without waiting for it."""
        with self._lock:
            self._closed = True
            self._queued.notify_all()
            self._finished.notify_all()

    def _is_over(self) -> bool:
        return self._closed or self._left() <= 0

    def _fill_up(self) -> None:
        while self._workers < self._threads and self._workers + self._abandoned < self._threads + MOST_ABANDONED:
            try:
                start_thread(Thread(target=self._work, name="decoder", daemon=True))
            except MemoryError:  # continue with the threads that have started
                return
            self._workers += 1

    def _abandon(self, job: _Job[Read]) -> None:
        job.outcome = ImageError(
            f"{job.path.name}: took longer than {self._seconds:g} s to decode (`runtime.image_seconds`)"
        )
        self._reading.remove(job)
        self._workers -= 1
        self._abandoned += 1
        self._fill_up()

    def _take(self) -> _Job[Read] | None:
        """Wait for the next image; None if no further one is wanted."""
        with self._lock:
            while not self._queue and not self._is_over():
                self._queued.wait()
            if self._is_over():
                return None
            job = self._queue.popleft()
            job.began = time.monotonic()
            self._reading.add(job)
            return job

    def _work(self) -> None:
        while job := self._take():
            outcome: Read | Exception
            try:
                outcome = self._read_twice(job.path)
            except Exception as error:  # an ImageError is a result; `wait` raises any other
                outcome = error
            with self._lock:
                if job in self._reading:
                    self._reading.remove(job)
                    if job.outcome is None:  # else the deadline was before
                        job.outcome = outcome
                    self._finished.notify_all()
                else:  # abandoned: another thread has replaced this one, unless too many were abandoned
                    self._abandoned -= 1
                    if self._workers >= self._threads:
                        return
                    self._workers += 1

    def _read_twice(self, path: Path) -> Read:
        try:
            return self._read(path)
        except ImageMemoryError:
            # Another image may have taken the memory. Retries run one at a time, when those before are done.
            if not self._alone.acquire(timeout=self._seconds):
                raise
            try:
                return self._read(path)
            finally:
                self._alone.release()
