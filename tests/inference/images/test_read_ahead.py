"""The time limit per image: a stuck image costs no other image, and the process ends."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from inference.basics.errors import ImageError
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
    held = {str(index) for index in range(2 * (os.cpu_count() or 1))}
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
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    def read(path: Path) -> str:
        threading.Event().wait(0.06)
        return path.stem

    ((_, answers),) = decode_ahead(PATHS[:25], read, 25, 0.5)
    assert answers == [path.stem for path in PATHS[:25]]


def test_the_number_of_abandoned_threads_is_limited_and_further_images_get_the_reason(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
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
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
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
