import io
import json
from pathlib import Path

import pytest

from inference.basics.run_log import Progress, RunLog, describe_progress, format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (32400, "9:00:00")]
)
def test_seconds_are_formatted_as_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_progress_shows_rate_time_left_and_limit() -> None:
    assert describe_progress(300, 600, 10, 12, 60) == "300/600 images  30.0/s  done in 0:10  time limit in 0:48"
    assert describe_progress(300, 600, 10, 70, 60).endswith("TIME LIMIT PASSED 0:10 AGO")


def test_without_a_terminal_the_last_line_is_always_printed_without_control_codes() -> None:
    out = io.StringIO()
    progress = Progress(3, 0, 1e9, out)
    for _ in range(3):
        progress.advance(1)
    assert out.getvalue().startswith("3/3 images") and out.getvalue().count("\n") == 1 and "\x1b" not in out.getvalue()


def test_a_terminal_shows_one_updated_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    Progress(2, 0, 1e9, out).advance(2)
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
