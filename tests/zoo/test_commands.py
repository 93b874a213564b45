"""Subcommands: times, and the one line in which each error reaches the user."""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from inference.basics.errors import ImagesError
from tests.conftest import ROOT
from zoo.commands import Command, build_parser, read_duration, run_command
from zoo.text import align_columns


@pytest.mark.parametrize(
    ("text", "seconds"), [("9h", 32400), ("90m", 5400), ("32400", 32400), ("1.5h", 5400), ("10s", 10)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "9 h", "-3h", "0h", "9d"])
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="wanted a time such as 9h, 90m or 32400"):
        read_duration(text)


def fail_in_a_library() -> None:
    np.zeros(3).reshape(2)


def fail_in_our_code() -> None:
    align_columns([["a"], ["b", "c"]], 0)


def fail_with(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


def run_failing(fail: Callable[[], None], *more: str) -> int:
    command = Command("add", "fails", "", lambda parser: None, lambda arguments: fail())
    return run_command(build_parser("x", "", [command]), ["add", *more])


UNEXPECTED = "; run with --debug for the trace"


@pytest.mark.parametrize(
    ("fail", "code", "line"),
    [
        (fail_with(ImagesError("data: found no image")), 1, "error: data: found no image"),
        (fail_with(KeyboardInterrupt()), 130, "interrupted"),
        (
            fail_with(MemoryError()),
            1,
            "error: out of memory in add; close other programs, or use a machine with more memory",
        ),
        (
            fail_with(ModuleNotFoundError("No module named 'cv2'")),
            1,
            "error: No module named 'cv2'; `make .venv` installs all packages",
        ),
        (
            fail_in_a_library,
            1,
            "error: unexpected ValueError in add: cannot reshape array of size 3 into shape (2,) "
            f"(zoo.commands:LINE){UNEXPECTED}",
        ),
        (
            fail_in_our_code,
            1,
            "error: unexpected ValueError in add: zip() argument 2 is longer than argument 1 "
            f"(zoo.text:LINE){UNEXPECTED}",
        ),
        (
            fail_with(RuntimeError("first\n  second\n")),
            1,
            f"error: unexpected RuntimeError in add: first (zoo.commands:LINE){UNEXPECTED}",
        ),
        (fail_with(KeyError()), 1, f"error: unexpected KeyError in add: no message (zoo.commands:LINE){UNEXPECTED}"),
    ],
)
def test_each_error_takes_one_line(
    fail: Callable[[], None], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_failing(fail) == code
    printed = capsys.readouterr().err
    assert re.sub(r":\d+\)", ":LINE)", printed) == f"{line}\n"
    assert run_failing(fail, "--debug") == code
    traced = capsys.readouterr().err
    assert traced.startswith("Traceback (most recent call last):") and traced.endswith(printed[-40:])


def test_the_place_of_an_unexpected_error_is_a_line_of_our_code(capsys: pytest.CaptureFixture[str]) -> None:
    run_failing(fail_in_our_code)
    number = int(capsys.readouterr().err.partition("zoo.text:")[2].partition(")")[0])
    assert "zip(" in (ROOT / "zoo" / "text.py").read_text().splitlines()[number - 1]


def test_an_error_of_the_parser_still_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run_failing(fail_in_a_library, "--unknown")
    assert error.value.code == 2


def test_a_reader_that_stops_early_is_no_error() -> None:
    code = (
        "from zoo.commands import run_guarded\n"
        "def run():\n"
        "    for line in range(10**6): print(line)\n"
        "raise SystemExit(run_guarded(run, 'x', False))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize("module", ["training", "demo"])
def test_the_other_command_lines_have_debug_too(module: str) -> None:
    words = [sys.executable, "-m", module, *(["score"] if module == "training" else []), "--help"]
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--debug" in shown
