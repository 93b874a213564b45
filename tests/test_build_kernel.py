"""build_kernel.py as a subprocess."""

import subprocess
import sys
from pathlib import Path

import pytest

import build_kernel
from tests.conftest import ROOT, Workshop

COMMANDS = [command.name for command in build_kernel.COMMANDS]


def call(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "build_kernel.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_parses(command: str) -> None:
    finished = call(command, "--help")
    assert finished.returncode == 0
    example = finished.stdout.partition("example:\n  ")[2]
    assert example.startswith(f"python build_kernel.py {command} ")


def test_the_full_pipeline(workshop: Workshop, tmp_path: Path) -> None:
    """From a checkpoint to a checked submission, with the commands of the README."""
    for name in ("everything.safetensors", "labels.csv", "train.csv"):
        (tmp_path / name).write_bytes((workshop.home / name).read_bytes())
    added = call(
        "add", "everything.safetensors", "--architecture", "test_resnet", "--image-size", 64, "--group", "all",
        "--labels", "labels.csv", "--train", "train.csv", cwd=tmp_path,
    )  # fmt: skip
    said = "weights_manifest.json: added everything, test_resnet at 64 px for all; "
    assert added.stdout.startswith(said) and added.stdout.count("\n") == 1, added.stderr
    exported = call("export", "--images", workshop.images, cwd=tmp_path)
    assert exported.stdout.startswith("build/onnx/everything.onnx  1.5 MB  opset 18  parity "), exported.stderr
    packed = call("pack", "--owner", "me", "--accelerator", "P100", cwd=tmp_path)
    assert packed.stdout.splitlines()[:2] == [
        "note: Kaggle has retired the P100: a kernel that requests it runs on NvidiaTeslaT4, which has two T4s. "
        "The bundle still runs on a P100 outside Kaggle, with `--wheels cudnn`",
        "note: Kaggle's image has no onnxruntime; `pack --wheels` includes it",
    ], packed.stderr
    assert "me/vitrine-bundle" in packed.stdout
    assert call("check", "build/bundle", cwd=tmp_path).stdout == "build/bundle: valid; 1 models\n"
    run = call(
        "dry-run", "--bundle", "build/bundle/dataset", "--competition", workshop.competition,
        "--out", "build/run", "--limit", 3, "--time-limit", "1h", cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "build/run/submission.csv: valid" in run.stdout and "the time limit of 1:00:00" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "absent"), "absent: no such bundle; make one with `build_kernel.py pack`"),
        (("export", "--manifest", "no.json", "--images", "x"), "no.json: no such file; name the manifest, or start one with `build_kernel.py init`"),
        (("pack", "--accelerator", "V100"), "--accelerator: found 'V100'; wanted one of: T4x2, P100, L4, CPU"),
        (("upload", "absent"), "absent: no such bundle; make one with `build_kernel.py pack`"),
        (("pack", "--manifest", "no.json"), "no.json: no such file; name the manifest, or start one with `build_kernel.py init`"),
        (("pack", "--manifest", "no.json", "--slug", "x", "--competition", "c"), "dataset-metadata.json: `id`: found 'your-kaggle-name/x'; wanted a slug of 6 to 50 of a-z, 0-9 and -"),
        (
            ("add", "x.pth", "--manifest", "no.json", "--architecture", "a", "--image-size", "8", "--group", "tag"),
            "no.json: no such file; give --labels labels.csv and --train train.csv to start one",
        ),
    ],
)  # fmt: skip
def test_a_failure_prints_one_line_and_exits_1(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    finished = call(*arguments, cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (1, f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_error_takes_one_line_and_debug_shows_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("packing.check.check.check_bundle", fail)
    assert build_kernel.main(["check", str(tmp_path)]) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: unexpected ZeroDivisionError in check: division by zero (packing.check.command:")
    assert line.endswith("); run with --debug for the trace\n") and line.count("\n") == 1
    assert build_kernel.main(["check", str(tmp_path), "--debug"]) == 1
    trace = capsys.readouterr().err
    assert trace.startswith("Traceback (most recent call last):") and trace.endswith(line)


def test_an_invalid_time_limit_is_refused_by_the_parser(tmp_path: Path) -> None:
    finished = call("dry-run", "--bundle", "b", "--competition", "c", "--out", "o", "--time-limit", "soon")
    assert finished.returncode == 2
    assert "argument --time-limit: found 'soon'; wanted a time such as 9h, 90m or 32400" in finished.stderr
