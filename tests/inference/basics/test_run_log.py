import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from inference.basics.deadline import Deadline
from inference.basics.run_log import Progress, RunLog, describe_progress, drop_unsaid, format_seconds, say

DEADLINE = Deadline(0.0, 1e9)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (32400, "9:00:00")]
)
def test_seconds_are_formatted_as_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_progress_shows_rate_time_left_and_limit() -> None:
    assert describe_progress(300, 600, 10, 48) == "300/600 images  30.0/s  done in 0:10  time limit in 0:48"
    assert describe_progress(300, 600, 10, -10).endswith("TIME LIMIT PASSED 0:10 AGO")


def test_without_a_terminal_the_last_line_is_always_printed_without_control_codes() -> None:
    out = io.StringIO()
    progress = Progress(3, DEADLINE, out)
    for _ in range(3):
        progress.advance(1)
    assert out.getvalue().startswith("3/3 images") and out.getvalue().count("\n") == 1 and "\x1b" not in out.getvalue()


def test_a_terminal_shows_one_updated_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    Progress(2, DEADLINE, out).advance(2)
    assert out.getvalue().startswith("\r\x1b[K2/2 images") and out.getvalue().endswith("\n")


def test_a_folder_of_broken_images_does_not_flood_the_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = RunLog()
    for index in range(1000):
        log.note_unreadable(f"image{index}", "empty")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "image image0 gets the prior labels: empty"
    assert len(lines) == 21 and lines[-1] == "run_log.json lists all further unreadable images"
    log.write(tmp_path / "run_log.json")
    assert len(json.loads((tmp_path / "run_log.json").read_text())["unreadable"]) == 1000


def open_closed() -> TextIO:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream.close()
    return stream


def open_unread() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


STREAMS: dict[str, Callable[[], TextIO | None]] = {
    "closed before the start": lambda: None,
    "closed": open_closed,
    "full": lambda: os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"),
    "without a reader": open_unread,
}


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
def test_a_stream_that_takes_nothing_loses_messages_and_ends_nothing(
    make: Callable[[], TextIO | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        patched.setattr(sys, "stdout", stream)
        log = RunLog()
        log.note("a note")
        log.note_degraded("a reason")
        for index in range(30):
            log.note_unreadable(str(index), "empty")
        Progress(1, DEADLINE).advance(1)
        say("a line", stream)
        drop_unsaid()
    assert log.notes == ["a note"] and log.degraded == ["a reason"] and len(log.unreadable) == 30
    if stream is not None:
        stream.close()  # nothing is left that would fail here


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("ascii", b"out/gr\\xf6\\xdfe.csv\n"),
        ("utf-8", "out/größe.csv\n".encode()),
        ("latin-1", b"out/gr\xf6\xdfe.csv\n"),
    ],
)
def test_characters_that_a_stream_lacks_are_printed_as_escapes(encoding: str, line: bytes) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    say("out/größe.csv", stream)
    assert stream.buffer.getvalue() == line  # type: ignore[attr-defined]


def test_bytes_of_a_file_name_that_are_not_utf_8_are_printed_as_escapes() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    say(os.fsdecode(b"gr\xf6\xdfe.csv"), stream)
    assert stream.buffer.getvalue() == b"gr\\udcf6\\udcdfe.csv\n"  # type: ignore[attr-defined]


def test_a_message_replaces_the_progress_line_of_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    say("a line", out)
    assert out.getvalue() == "\r\x1b[Ka line\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_an_interpreter_with_an_unread_pipe_ends_with_its_own_exit_code(stream: str) -> None:
    program = (
        "import sys; from inference.basics.run_log import drop_unsaid, say;"
        f"say('x', sys.{stream}); drop_unsaid(); sys.exit(3)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-c", program], check=False, **{stream: writer})  # type: ignore[call-overload]
    finally:
        os.close(writer)
    assert done.returncode == 3
