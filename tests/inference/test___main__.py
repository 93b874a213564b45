import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference import __main__ as script
from inference.run import predict
from inference.run.state import Request
from tests.conftest import ROOT, Workshop

OPTIONS = ["--bundle", "b", "--images", "i", "--sample", "s", "--out", "o"]


def list_options(workshop: Workshop, out: Path) -> list[str]:
    given = {"bundle": workshop.dataset, "images": workshop.images, "sample": workshop.sample, "out": out}
    return [word for name, path in given.items() for word in (f"--{name}", str(path))]


def read_rows(out: Path) -> list[str]:
    return out.read_text().splitlines()


@pytest.mark.parametrize("option", ["--time-limit", "--started-at"])
@pytest.mark.parametrize("text", ["inf", "nan", "0", "-1", "1e999", "9h", ""])
def test_times_are_finite_numbers_above_0(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main([*OPTIONS, f"{option}={text}"])
    message = f"inference.pyz: error: argument {option}: found {text!r}; wanted seconds, a finite number above 0"
    assert ended.value.code == 2 and capsys.readouterr().err.splitlines()[-1] == message


def test_each_option_is_a_field_of_the_request() -> None:
    given = script.build_parser().parse_args(OPTIONS)
    assert Request(**vars(given)) == Request(Path("b"), Path("o"), images=Path("i"), sample=Path("s"))
    more = ["--low-memory", "--fresh", "--strict", "--time-limit", "9", "--started-at", "8.5", "--precision", "fp16"]
    request = Request(**vars(script.build_parser().parse_args([*OPTIONS, *more])))
    assert request.low_memory and request.fresh and request.strict
    assert (request.time_limit, request.started_at, request.precision) == (9.0, 8.5, "fp16")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C; the same command continues it"),
        (MemoryError(), 1, "error: out of memory (no details given)"),
        (PermissionError(13, "Permission denied", "x"), 1, "error: [Errno 13] Permission denied: 'x'"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Request) -> bool:
        raise error

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(predict, "run", fail)
    try:
        assert script.main(OPTIONS) == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == f"{line}\n"


WAITING = """
import sys, time
from inference.__main__ import main
from inference.models.sessions import ModelSession
def wait(self, *given, **more):
    print("ready", flush=True)
    time.sleep(60)
ModelSession.predict = wait
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_a_run_with_one_line_and_a_valid_submission_of_prior_labels(
    workshop: Workshop, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WAITING, *list_options(workshop, tmp_path / "s.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        lines = process.stderr.read().decode().splitlines()
    assert lines[1:] == ["stopped by Ctrl-C; the same command continues it"], lines
    assert len(read_rows(tmp_path / "s.csv")) == 21
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_run_without_streams_writes_the_same_submission(streams: str, workshop: Workshop, tmp_path: Path) -> None:
    assert script.main(list_options(workshop, tmp_path / "whole" / "s.csv")) == 0
    out = tmp_path / "größe.csv"
    given = [sys.executable, "-m", "inference", *list_options(workshop, out)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["sh", "-c", f'"$@" {streams}', "sh", *given], cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0
    assert read_rows(out) == read_rows(tmp_path / "whole" / "s.csv")


def test_files_do_not_get_the_numbers_of_closed_streams(tmp_path: Path) -> None:
    program = (
        "import sys; from inference.__main__ import hold_standard_files; hold_standard_files();"
        "file = open(sys.argv[1], 'w'); file.write(str(file.fileno()))"
    )
    given = [sys.executable, "-c", program, str(tmp_path / "number")]
    subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *given], cwd=ROOT, check=True)
    assert int((tmp_path / "number").read_text()) > 2


def test_the_help_into_a_pipe_that_nobody_reads_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "inference", "--help"], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


# The script for a user without rights, who may not even read the packages, nor enter the folders above `folder`.
AS_NOBODY = """
import encodings.utf_8_sig, os, sys
import inference.run.predict
from inference.__main__ import main
folder, *arguments = sys.argv[1:]
os.chdir(folder)
os.setgid(65534)
os.setuid(65534)
sys.exit(main(arguments))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own/bundle/dataset/weights_manifest.json", "{path}: cannot be read: Permission denied"),
        (
            "own/bundle/dataset/tag.onnx",
            "weights_manifest.json: `models[2].onnx.fp32.file`: {path}: cannot be read: Permission denied",
        ),
        ("own/competition/sample_submission.csv", "{path}: cannot be read: Permission denied"),
        ("own/competition/test", "{path}: cannot be listed: Permission denied"),
        ("out", "{path}/s.csv: cannot be written: Permission denied"),
        (
            "out/s.csv.work",
            "{path}/chunks.data: cannot be opened: Permission denied; delete {path} or choose another --out",
        ),
    ],
    ids=["manifest", "model", "sample", "images", "output", "work folder"],
)
def test_without_rights_the_message_names_the_path(
    name: str, message: str, own_workshop: Workshop, tmp_path: Path
) -> None:
    (tmp_path / "out" / "s.csv.work").mkdir(parents=True)
    subprocess.run(["chmod", "-R", "a+rwX", str(tmp_path)], check=True)
    (tmp_path / name).chmod(0)
    options = [word.replace(f"{tmp_path}/", "") for word in list_options(own_workshop, tmp_path / "out" / "s.csv")]
    given = [sys.executable, "-c", AS_NOBODY, str(tmp_path), *options]
    finished = subprocess.run(given, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (finished.returncode, finished.stderr) == (1, f"error: {message.format(path=name)}\n")


def test_two_runs_that_start_together_on_one_output_are_one_run_and_one_message(
    workshop: Workshop, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "inference", *list_options(workshop, tmp_path / "s.csv")]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT) for _ in range(3)]
    ends = [(run.communicate()[1].decode(), run.returncode) for run in runs]
    refused = f"error: {tmp_path}/s.csv.work: in use by another run; wait for it or choose another --out\n"
    assert all(code == 0 or (code, errors) == (1, refused) for errors, code in ends), ends
    assert 0 in [code for _, code in ends] and len(read_rows(tmp_path / "s.csv")) == 21
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run_log.json", "s.csv"]


def test_a_start_in_the_future_is_refused(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = time.monotonic() + 100
    assert script.main([*list_options(workshop, tmp_path / "s.csv"), "--started-at", str(later)]) == 1
    message = (
        r"error: --started-at: found \d+, (99|100) s in the future; wanted a moment of time.monotonic\(\) in the past\n"
    )
    assert re.fullmatch(message, capsys.readouterr().err)
