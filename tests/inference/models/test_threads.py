"""Work that runs at the same time and never outlives its call."""

import threading
import time
from collections.abc import Callable
from typing import NoReturn

import pytest

from inference.models import threads
from inference.models.threads import Threads


def no_stop() -> None:
    raise AssertionError("nothing was interrupted")


def test_all_work_runs_at_the_same_time_and_its_results_keep_their_order() -> None:
    barrier = threading.Barrier(3)

    def meet(number: int) -> Callable[[], int]:
        def work() -> int:
            barrier.wait(10)
            return number

        return work

    pool = Threads()
    for _ in range(3):
        assert pool.spread([meet(1), meet(2), meet(3)], no_stop) == [1, 2, 3]


def test_a_single_work_runs_in_this_thread_and_further_threads_are_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (started.append(self), real(self))[1])
    pool = Threads()
    assert pool.spread([threading.get_ident], no_stop) == [threading.get_ident()]
    assert started == []
    for _ in range(2):
        first, *others = pool.spread([threading.get_ident] * 3, no_stop)
        assert first == threading.get_ident() and first not in others
    assert len(started) == 2 and all(thread.daemon for thread in started), "they do not keep the process alive"


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_after_all_work_has_ended(failing: int) -> None:
    ended: list[int] = []

    def make(number: int) -> Callable[[], None]:
        def work() -> None:
            if number == failing:
                raise ValueError(f"work {number}")
            time.sleep(0.1)
            ended.append(number)

        return work

    with pytest.raises(ValueError, match=f"^work {failing}$"):
        Threads().spread([make(0), make(1), make(2)], no_stop)
    assert len(ended) == 2


def test_the_threads_survive_an_error() -> None:
    def fail() -> NoReturn:
        raise ValueError

    pool = Threads()
    with pytest.raises(ValueError):
        pool.spread([fail, fail, fail], no_stop)
    assert pool.spread([lambda: 1, lambda: 2, lambda: 3], no_stop) == [1, 2, 3]


@pytest.mark.parametrize("seconds", [(0.06, 0.01), (0.01, 0.06)])
def test_an_interrupt_stops_the_other_work_and_waits_for_it(seconds: tuple[float, float]) -> None:
    stopped, ended = threading.Event(), list[float]()

    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    def make(after: float) -> Callable[[], None]:
        def work() -> None:
            assert stopped.wait(10)
            time.sleep(after)
            ended.append(after)

        return work

    with pytest.raises(KeyboardInterrupt):
        Threads().spread([interrupted, make(seconds[0]), make(seconds[1])], stopped.set)
    assert sorted(ended) == sorted(seconds)


def test_no_work_runs_if_a_thread_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """ThreadPoolExecutor would keep the work, and run it beside the retry."""
    ran: list[int] = []
    real, count = threading.Thread.start, iter(range(99))

    def start(self: threading.Thread) -> None:
        if next(count) == 1:
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threads.Thread, "start", start)
    pool = Threads()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.spread([lambda: ran.append(0), lambda: ran.append(1), lambda: ran.append(2)], no_stop)
    time.sleep(0.05)
    assert ran == []
    pool.spread([lambda: ran.append(0), lambda: ran.append(1), lambda: ran.append(2)], no_stop)
    assert sorted(ran) == [0, 1, 2]
