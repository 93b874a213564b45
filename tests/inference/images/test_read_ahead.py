"""The time limit per image: a stuck image costs no other image, and the process ends."""

import math
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from inference.basics.cores import count_cores
from inference.basics.deadline import Deadline
from inference.basics.errors import ImageError, LateError
from inference.images import read_ahead as decode
from inference.images.read_ahead import CHUNKS_AHEAD, decode_ahead
from tests.conftest import ROOT

PATHS = [Path(f"{index}.png") for index in range(50)]


def read_name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("size", [1, 7, 50, 64])
def test_chunks_are_the_images_in_order_and_a_missing_one_is_reported(size: int) -> None:
    paths = [None if index == 9 else path for index, path in enumerate(PATHS)]
    chunks = list(decode_ahead(paths, read_name, size, 60))
    assert [start for start, _ in chunks] == list(range(0, 50, size))
    assert [len(chunk) for _, chunk in chunks] == [len(paths[start : start + size]) for start in range(0, 50, size)]
    answers = [answer for _, chunk in chunks for answer in chunk]
    assert str(answers.pop(9)) == "no such file in the folder"
    assert answers == [path.stem for path in PATHS if path.stem != "9"]


def test_without_images_there_are_no_chunks() -> None:
    assert list(decode_ahead([], read_name, 4, 60)) == []


@pytest.fixture
def stuck() -> threading.Event:
    """An event to set at the end of a test, so that its threads end."""
    return threading.Event()


def hold(names: set[str], stuck: threading.Event) -> Callable[[Path], str]:
    """Return a `read` that gives the stem of a path, but waits for `stuck` at the names."""

    def read(path: Path) -> str:
        if path.stem in names:
            stuck.wait()
        return path.stem

    return read


def test_stuck_images_cost_no_other_image_even_if_every_thread_is_stuck(stuck: threading.Event) -> None:
    held = {str(index) for index in range(2 * count_cores())}
    chunks = list(decode_ahead(PATHS, hold(held, stuck), 8, 0.5))
    stuck.set()
    answers = [answer for _, chunk in chunks for answer in chunk]
    for path, answer in zip(PATHS, answers, strict=True):
        if path.stem in held:
            assert isinstance(answer, ImageError)
            assert str(answer) == f"{path.name}: took longer than 0.5 s to decode (`runtime.image_seconds`)"
        else:
            assert answer == path.stem


def test_the_time_of_an_image_counts_from_the_start_of_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """All images together take three times the limit, each a fraction of it."""
    monkeypatch.setattr(decode, "count_cores", lambda: 1)

    def read(path: Path) -> str:
        threading.Event().wait(0.06)
        return path.stem

    ((_, answers),) = decode_ahead(PATHS[:25], read, 25, 0.5)
    assert answers == [path.stem for path in PATHS[:25]]


def test_the_number_of_abandoned_threads_is_limited_and_further_images_get_the_reason(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "count_cores", lambda: 2)
    monkeypatch.setattr(decode, "MOST_ABANDONED", 3)
    before = set(threading.enumerate())
    with closing(decode_ahead(PATHS, hold({path.stem for path in PATHS}, stuck), 10, 0.02)) as chunks:
        answers = [str(answer) for _, chunk in chunks for answer in chunk]
        assert len(set(threading.enumerate()) - before) == 5
    stuck.set()
    assert [answer.partition(": ")[2][:4] for answer in answers[:5]] == ["took"] * 5
    assert set(answers[5:]) == {"not read: 5 earlier images still block all decoders"}


def test_an_abandoned_thread_that_finishes_reads_further_images(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "count_cores", lambda: 1)
    monkeypatch.setattr(decode, "MOST_ABANDONED", 0)
    back = threading.Event()

    def read(path: Path) -> str:
        if path.stem == "0":
            stuck.wait()
        else:
            back.set()
        return path.stem

    with closing(decode_ahead(PATHS, read, 1, 0.5)) as chunks:
        assert isinstance(next(chunks)[1][0], ImageError)
        stuck.set()
        assert back.wait(10)
        assert [answer for _, chunk in chunks for answer in chunk] == [path.stem for path in PATHS[1:]]


def test_an_abandoned_thread_that_was_replaced_ends_when_it_finishes(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "count_cores", lambda: 1)
    threads: list[threading.Thread] = []

    def read(path: Path) -> str:
        threads.append(threading.current_thread())
        if path.stem == "0":
            stuck.wait()
        return path.stem

    with closing(decode_ahead(PATHS, read, 1, 0.2)) as chunks:
        assert isinstance(next(chunks)[1][0], ImageError)
        assert next(chunks) == (1, ["1"])
        stuck.set()
        threads[0].join(10)
        assert not threads[0].is_alive()
        assert len(list(chunks)) == 48
    assert len(set(threads)) == 2


def test_no_chunk_is_waited_for_after_the_deadline(stuck: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk 0 is complete, chunk 1 is half read, the others are not begun."""
    monkeypatch.setattr(decode, "count_cores", lambda: 2)
    seen: list[str] = []

    def read(path: Path) -> str:
        seen.append(path.stem)
        if int(path.stem) >= 7:
            stuck.wait()
        return path.stem

    started = time.monotonic()
    deadline = Deadline(started, limit=5.0, kept=4.2)
    with closing(decode_ahead(PATHS, read, 5, 60, deadline.left)) as decoded:
        chunks = dict(decoded)
        assert 0.8 <= time.monotonic() - started < 5
        stuck.set()
    assert chunks[0] == [path.stem for path in PATHS[:5]]
    assert chunks[5][:2] == ["5", "6"] and [len(chunk) for chunk in chunks.values()] == [5] * 10
    late = [*chunks[5][2:], *(answer for start in range(10, 50, 5) for answer in chunks[start])]
    assert {type(answer) for answer in late} == {LateError}
    assert [str(answer) for answer in late] == [f"{path.name}: not read before the deadline" for path in PATHS[7:]]
    assert len(seen) == 9, "no reading begins after the deadline"


def test_images_that_are_read_before_the_deadline_are_kept_after_it(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock jumps past the deadline while the first chunk is in use and image 5 is read."""
    monkeypatch.setattr(decode, "count_cores", lambda: 1)
    clock, reached = [0.0], threading.Event()

    def read(path: Path) -> str:
        if path.stem == "5":
            reached.set()
            stuck.wait()
        return path.stem

    with closing(decode_ahead(PATHS[:8], read, 2, 60, Deadline(0.0, 9.0, now=lambda: clock[0]).left)) as chunks:
        assert next(chunks) == (0, ["0", "1"])
        assert reached.wait(10)
        clock[0] = 9.0
        answers = [answer for _, chunk in chunks for answer in chunk]
        stuck.set()
    assert answers[:3] == ["2", "3", "4"] and [type(answer) for answer in answers[3:]] == [LateError] * 3


def test_a_missing_image_stays_missing_after_the_deadline() -> None:
    ((_, (missing, late)),) = decode_ahead([None, PATHS[0]], read_name, 2, 60, Deadline(time.monotonic(), 0.0).left)
    assert str(missing) == "no such file in the folder" and not isinstance(missing, LateError)
    assert str(late) == "0.png: not read before the deadline" and isinstance(late, LateError)


def test_closing_ends_a_wait(stuck: threading.Event) -> None:
    decoders = decode._Decoders(hold({"0"}, stuck), 60, 1, lambda: math.inf)
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(decoders.wait(decoders.submit(PATHS[0]))))
    waiting.start()
    while not decoders._finished._waiters:  # type: ignore[attr-defined]
        time.sleep(0.001)
    decoders.close()
    waiting.join(10)
    assert not waiting.is_alive() and isinstance(answers[0], LateError)
    stuck.set()


class SlowQueue(deque[Any]):
    """A queue that lets other threads run between a look at it and a change of it, so that races are likely."""

    def __len__(self) -> int:
        length = super().__len__()
        time.sleep(0.001)
        return length


def test_closing_while_threads_empty_the_queue_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "count_cores", lambda: 4)
    monkeypatch.setattr(decode, "deque", SlowQueue)
    before = set(threading.enumerate())

    def close_often() -> None:
        for _ in range(30):
            with closing(decode_ahead(PATHS[:12], read_name, 4, 60)) as chunks:
                next(chunks)

    closer = threading.Thread(target=close_often, daemon=True)
    closer.start()
    closer.join(20)
    assert not closer.is_alive()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_images_are_read_ahead_but_not_all_at_once() -> None:
    seen: list[str] = []
    ready = threading.Event()

    def read(path: Path) -> str:
        seen.append(path.stem)
        if len(seen) == 5 * (CHUNKS_AHEAD + 1):
            ready.set()
        return path.stem

    with closing(decode_ahead(PATHS, read, 5, 60)) as chunks:
        next(chunks)
        assert ready.wait(10)
        assert len(seen) == 5 * (CHUNKS_AHEAD + 1)


def test_the_threads_end_when_the_generator_is_closed_early() -> None:
    before = set(threading.enumerate())
    with closing(decode_ahead(PATHS, read_name, 5, 60)) as chunks:
        next(chunks)
        threads = set(threading.enumerate()) - before
        assert threads
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_other_errors_than_image_errors_are_raised_in_the_waiting_thread() -> None:
    def read(path: Path) -> str:
        raise ZeroDivisionError(path.name)

    with pytest.raises(ZeroDivisionError, match=r"^0\.png$"):
        list(decode_ahead(PATHS, read, 5, 60))


@pytest.mark.parametrize(
    "work", ["time.sleep(600)", "Image.new('RGB', (9000, 9000)).resize((8000, 8000), Image.Resampling.LANCZOS)"]
)
def test_the_process_ends_with_its_exit_code_while_threads_are_stuck(work: str) -> None:
    """Threads stuck in Python and in Pillow's C code."""
    code = f"""
        import sys, time
        from pathlib import Path
        from PIL import Image
        from inference.images.read_ahead import decode_ahead
        from inference.basics.errors import ImageError

        def read(path):
            if path.stem == "0":
                {work}
            return path.stem

        ((_, answers),) = decode_ahead([Path("0.png"), Path("1.png")], read, 2, 0.2)
        assert isinstance(answers[0], ImageError) and answers[1] == "1"
        sys.exit(3)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (finished.returncode, finished.stdout, finished.stderr) == (3, "", "")
