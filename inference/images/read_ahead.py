"""Images read by threads ahead of their use, each within its time: no file can hang the run."""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Condition, Lock, Thread
from typing import Generic, TypeVar

from inference.basics.errors import ImageError, ImageMemoryError

CHUNKS_AHEAD = 2  # read while the sessions work: enough to never wait, few enough to keep memory flat
# Threads left behind at a time. Each may hold a core and an image's memory, so there must be an end.
MOST_ABANDONED = 32
Read = TypeVar("Read")


def decode_ahead(
    paths: Sequence[Path | None], read: Callable[[Path], Read], size: int, image_seconds: float
) -> Generator[tuple[int, list[Read | ImageError]], None, None]:
    """Chunks of `size` images as (place of the first, what `read` gives for each), read ahead of their use.

    An image whose reading takes longer than `image_seconds`, counted from its own beginning, becomes an ImageError
    like any other that cannot be read. One that memory does not suffice for is tried again. Whatever else `read` raises
    is raised here; so is MemoryError where the system gives no thread to read with.
    """
    starts = iter(range(0, len(paths), size))
    pending: deque[tuple[int, list[_Job[Read]]]] = deque()
    with closing(_Decoders(read, image_seconds, os.cpu_count() or 1)) as decoders:
        while True:
            while len(pending) <= CHUNKS_AHEAD and (start := next(starts, None)) is not None:
                pending.append((start, [decoders.submit(path) for path in paths[start : start + size]]))
            if not pending:
                return
            start, jobs = pending.popleft()
            yield start, [decoders.wait(job) for job in jobs]


def start_thread(thread: Thread) -> None:
    """Start it; raises MemoryError where the system has no further thread, or no memory for its stack."""
    try:
        thread.start()
    except RuntimeError as error:
        raise MemoryError(f"no thread for the {thread.name}: {error}") from error


@dataclass(eq=False)
class _Job(Generic[Read]):
    """One image: not begun, begun at a time of time.monotonic(), or with an outcome."""

    path: Path | None
    began: float = 0.0
    outcome: Read | Exception | None = None


class _Decoders(Generic[Read]):
    """Threads that read images. A thread cannot be killed: one that is stuck is left behind and another steps in.

    They are daemons, which is why this is no ThreadPoolExecutor: the process ends without waiting for them.
    """

    def __init__(self, read: Callable[[Path], Read], seconds: float, threads: int) -> None:
        self._read, self._seconds, self._threads = read, seconds, threads
        self._queue: SimpleQueue[_Job[Read] | None] = SimpleQueue()
        self._alone = Lock()  # of the one image that is tried again
        self._changed = Condition()  # holds all below, and the jobs' outcomes
        self._reading: set[_Job[Read]] = set()
        self._workers = self._abandoned = 0
        with self._changed:
            self._fill_up()
        if not self._workers:
            raise MemoryError("the system gives no thread to read images with")

    def submit(self, path: Path | None) -> _Job[Read]:
        """Queue an image; None is one that is not in the folder."""
        job: _Job[Read] = _Job(path)
        if path is None:
            job.outcome = ImageError("no such file in the folder")
        else:
            self._queue.put(job)
        return job

    def wait(self, job: _Job[Read]) -> Read | ImageError:
        """The outcome of a job. Meanwhile every image whose time is over is given up, whoever waits for it."""
        with self._changed:
            while job.outcome is None:
                now = time.monotonic()
                for late in [one for one in self._reading if now - one.began >= self._seconds]:
                    self._give_up(late)
                if job.outcome is None and not self._workers:
                    job.outcome = ImageError(f"not read: {self._abandoned} images before it still hold every decoder")
                if job.outcome is None:
                    # What begins from now on is late after the first of these.
                    first = min((one.began for one in self._reading), default=now)
                    self._changed.wait(max(first + self._seconds - now, 0))
            outcome = job.outcome
        if isinstance(outcome, Exception) and not isinstance(outcome, ImageError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Let every thread end after its image; waits for none."""
        while not self._queue.empty():
            self._queue.get()
        self._queue.put(None)

    def _fill_up(self) -> None:
        while self._workers < self._threads and self._workers + self._abandoned < self._threads + MOST_ABANDONED:
            try:
                start_thread(Thread(target=self._work, name="decoder", daemon=True))
            except MemoryError:  # those that there are must do
                return
            self._workers += 1

    def _give_up(self, job: _Job[Read]) -> None:
        name = job.path.name if job.path else ""
        job.outcome = ImageError(f"{name}: took longer than {self._seconds:g} s to decode (`runtime.image_seconds`)")
        self._reading.remove(job)
        self._workers -= 1
        self._abandoned += 1
        self._fill_up()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None and job.path:
            with self._changed:
                job.began = time.monotonic()
                self._reading.add(job)
            outcome: Read | Exception
            try:
                outcome = self._read_twice(job.path)
            except Exception as error:  # an ImageError is a result, any other is the waiting thread's to raise
                outcome = error
            with self._changed:
                if job.outcome is None:
                    job.outcome = outcome
                    self._reading.remove(job)
                    self._changed.notify_all()
                else:  # given up meanwhile: another thread has this one's place, unless there were too many
                    self._abandoned -= 1
                    if self._workers >= self._threads:
                        return
                    self._workers += 1
        self._queue.put(None)  # for the next thread

    def _read_twice(self, path: Path) -> Read:
        try:
            return self._read(path)
        except ImageMemoryError:
            # What took the memory may be another image: by their turn here those that failed with it are done.
            if not self._alone.acquire(timeout=self._seconds):
                raise
            try:
                return self._read(path)
            finally:
                self._alone.release()
