"""Threads that run the parts of a batch at the same time."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")


class Threads:
    """Threads shared by all sessions, which run one at a time; each starts when it is first needed.

    No work outlives its call: a lane that still ran while its batch is retried would share its buffers with the retry.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._started = 0

    def spread(self, work: Sequence[Callable[[], Result]], stop: Callable[[], None]) -> list[Result]:
        """Run all work at the same time, the first in this thread, and return the results when all has ended.

        `stop`: makes the work end early; called if this thread is interrupted. Raises the error of the first work that
        failed; RuntimeError: a thread cannot be started, and no work was.
        """
        while self._started < len(work) - 1:
            Thread(target=self._serve, name="lane", daemon=True).start()
            self._started += 1
        futures: list[Future[Result]] = [Future() for _ in work]
        for pair in zip(futures[1:], work[1:], strict=True):
            self._queue.put(pair)
        try:
            _complete(futures[0], work[0])
            wait(futures)
        except BaseException:
            stop()
            wait(futures[1:])
            raise
        return [future.result() for future in futures]

    def _serve(self) -> None:
        while True:
            _complete(*self._queue.get())


def _complete(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except Exception as error:  # `spread` raises it
        future.set_exception(error)
