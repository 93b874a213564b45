"""The supervision of a script, with stand-ins for it that die, hang or fail."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference.basics.deadline import Deadline
from inference.run import supervise as module
from inference.run.supervise import check_result, describe_end, run_script, run_trial, supervise, write_prior
from inference.task.ids import read_ids
from tests.conftest import Workshop

# At start number N, does the N-th of the given things; notes its options and whether it may see a GPU.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
folder, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
started = len(list(folder.glob("start-*")))
note = {"options": sys.argv[3:], "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "all")}
(folder / f"start-{started}").write_text(json.dumps(note))
print("line of start", started, flush=True)
what = plan[min(started, len(plan) - 1)]
if what == "save and die":
    work = folder / "submission.csv.work"
    work.mkdir(exist_ok=True)
    with (work / "chunks.data").open("a") as file:
        file.write("x")
    what = 9
if what == "hang":
    time.sleep(60)
if what < 0:
    sys.exit(-what - 1)
os.kill(os.getpid(), what)
"""


def start(folder: Path, plan: list[object], seconds: float = 60.0) -> tuple[bool, list[dict[str, object]], list[str]]:
    """Supervise the stand-in; return the result, what each start noted, and the warnings."""
    warnings: list[str] = []
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, str(folder), json.dumps(plan)]
    deadline = Deadline(time.monotonic(), seconds)
    ended = supervise(command, {**os.environ}, deadline, 0.2, folder / "submission.csv", warnings.append)
    notes = [json.loads(path.read_text()) for path in sorted(folder.glob("start-*"))]
    return ended, notes, warnings


def test_a_script_that_ends_by_itself_is_started_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for code in (-1, -4):  # exit codes 0 and 3
        folder = tmp_path / str(code)
        folder.mkdir()
        ended, notes, warnings = start(folder, [code])
        assert ended and len(notes) == 1 and not warnings
    options = notes[0]["options"]
    assert isinstance(options, list) and options[0] == "--time-limit" and options[2] == "--started-at"
    assert float(options[1]) == 60 and abs(float(options[3]) - time.monotonic()) < 30
    assert "line of start 0\n" in capfd.readouterr().out


@pytest.mark.parametrize("signal", [9, 15, 11, 6])
def test_a_killed_script_is_started_again_as_before_then_without_the_gpu_then_with_little_memory(
    signal: int, tmp_path: Path
) -> None:
    ended, notes, warnings = start(tmp_path, [signal, signal, signal, -1])
    assert not ended
    assert [note["gpus"] for note in notes] == ["all", "all", "", ""]
    assert ["--low-memory" in note["options"] for note in notes] == [False, False, False, True]  # type: ignore[operator]
    assert len({tuple(note["options"][:4]) for note in notes}) == 1, "one deadline for all starts"  # type: ignore[index]
    end = describe_end(-signal)
    assert warnings == [
        f"the script {end}; starting it again {way}; it continues from its saved predictions"
        for way in ("as before", "without the GPU", "with one lane and small batches")
    ]


def test_the_last_way_is_repeated_as_long_as_it_saves_predictions(tmp_path: Path) -> None:
    ended, notes, warnings = start(tmp_path, [9, 9, 9, *["save and die"] * 4, 9])
    assert not ended and len(notes) == 8
    assert warnings[-1] == (
        f"the script {describe_end(-9)}; it is not started again; the submission is the last one that it wrote"
    )


def test_an_error_that_the_script_reports_is_tried_once_more_with_little_memory(tmp_path: Path) -> None:
    ended, notes, warnings = start(tmp_path, [-2])  # exit code 1
    assert not ended and len(notes) == 2 and "--low-memory" in notes[1]["options"]  # type: ignore[operator]
    assert warnings[-1].startswith("the script ended with exit code 1; it is not started again")


def test_a_script_that_hangs_is_stopped_at_the_deadline(tmp_path: Path) -> None:
    began = time.monotonic()
    ended, notes, warnings = start(tmp_path, ["hang"], seconds=1.0)
    assert not ended and len(notes) == 1 and time.monotonic() - began < 3
    assert warnings == [
        "the script did not end before its time limit and was stopped; no time is left to start it again; the "
        "submission is the last one that it wrote"
    ]


def test_there_is_no_start_without_time_for_it(tmp_path: Path) -> None:
    ended, notes, warnings = start(tmp_path, [9], seconds=4.0)
    assert not ended and len(notes) == 1
    assert "; no time is left to start it again; " in warnings[0]


def test_a_script_that_closes_its_output_and_stays_is_stopped(capfd: pytest.CaptureFixture[str]) -> None:
    program = "import os, time; os.write(1, b'caf\\xc3\\xa9 \\xff'); os.close(1); os.close(2); time.sleep(60)"
    began = time.monotonic()
    assert run_script([sys.executable, "-c", program], os.environ, Deadline(began, 1.5)) is None
    assert time.monotonic() - began < 4
    assert capfd.readouterr().out == "café �"


def test_an_end_is_described() -> None:
    assert describe_end(-9) == "was killed by signal 9 (Killed; Linux does so if memory runs out)"
    assert describe_end(-11) == "was killed by signal 11 (Segmentation fault)"
    assert describe_end(4) == "ended with exit code 4"


def test_the_first_submission_needs_no_script(workshop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    write_prior(workshop.dataset, workshop.sample, out)
    rows = out.read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == read_ids(workshop.sample)
    assert len({row.partition(",")[2] for row in rows}) == 1
    warnings: list[str] = []
    assert check_result(workshop.dataset, workshop.sample, out, warnings.append) == 20 and not warnings


@pytest.mark.parametrize("content", [None, "id,attribute_ids\n", "torn", "id,attribute_ids\n0,99\n"])
def test_an_invalid_result_is_replaced_by_prior_labels(content: str | None, workshop: Workshop, tmp_path: Path) -> None:
    out, whole, warnings = tmp_path / "submission.csv", tmp_path / "whole.csv", list[str]()
    write_prior(workshop.dataset, workshop.sample, whole)
    if content is not None:
        out.write_text(content)
    assert check_result(workshop.dataset, workshop.sample, out, warnings.append) == 20
    assert out.read_bytes() == whole.read_bytes()
    (warning,) = warnings
    assert warning.startswith(f"{out}: ") and warning.endswith("; replaced by prior labels")


def test_a_killed_trial_is_repeated_once_and_its_end_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = iter([-9, 0])
    answers = {"provider": "CPUExecutionProvider"}

    def run(*_: object, **more: object) -> subprocess.CompletedProcess[str]:
        assert more["timeout"] == pytest.approx(10, abs=0.5)
        return subprocess.CompletedProcess([], next(ends), f"noise\n{json.dumps(answers)}\n", "")

    monkeypatch.setattr(module.subprocess, "run", run)
    deadline = Deadline(time.monotonic(), 100)
    assert run_trial(tmp_path, tmp_path, {}, deadline) == (answers, "")
    ends = iter([1, -11])
    assert run_trial(tmp_path, tmp_path, {}, deadline) == (None, "was killed by signal 11 (Segmentation fault)")


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (OSError("no such program"), "no result: no such program"),
        (subprocess.TimeoutExpired("python", 10), "no result within 10 s"),
        ("", "no result: list index out of range"),
        ("noise", "no result: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_trial_without_a_result_has_a_reason(
    output: Exception | str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []

    def run(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        starts.append(1)
        if isinstance(output, Exception):
            raise output
        return subprocess.CompletedProcess([], 0, output, "")

    monkeypatch.setattr(module.subprocess, "run", run)
    assert run_trial(tmp_path, tmp_path, {}, Deadline(time.monotonic(), 100)) == (None, reason)
    assert len(starts) == 2


def test_a_trial_is_told_where_attached_datasets_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess([], 0, "{}", "")

    monkeypatch.setattr(module.subprocess, "run", run)
    deadline = Deadline(time.monotonic(), 100)
    run_trial(tmp_path, tmp_path, {}, deadline, {"a/x": Path("/in/x"), "b/y": Path("/in/y")})
    run_trial(tmp_path, tmp_path, {}, deadline)
    assert commands[0] == [*commands[1], "--attached=a/x=/in/x", "--attached=b/y=/in/y"]
