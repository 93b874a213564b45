"""Complete runs of a bundle that has every model in fp32, fp16 and int8."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.basics.errors import StoreError
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.models import runners
from inference.models.precision import PrecisionTrial
from inference.run import store
from inference.run.predict import run
from inference.run.state import Request
from packing.check.check import check_bundle
from packing.pack.write_bundle import pack
from tests.conftest import NAMES, Precise, Workshop, check_valid

MODELS = ("everything", "culture", "tag")


@pytest.fixture
def request_all(precise: Precise, workshop: Workshop, tmp_path: Path) -> Request:
    """A run of the packed bundle with all precisions, in ten chunks of two images."""
    pack(precise.home / MANIFEST_NAME, precise.onnx, tmp_path / "bundle", NAMES)
    check_bundle(tmp_path / "bundle")
    dataset = tmp_path / "bundle" / "dataset"
    change_runtime(dataset, batch_size=2)
    return Request(dataset, tmp_path / "out" / "submission.csv", images=workshop.images, sample=workshop.sample)


def change_runtime(dataset: Path, **changes: Any) -> None:
    document = json.loads((dataset / MANIFEST_NAME).read_text())
    document["runtime"] |= changes
    (dataset / MANIFEST_NAME).write_text(json.dumps(document))


def read_log(request: Request) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(request.out.with_name("run_log.json").read_text())
    return log


def decide_trials(faster: bool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Set the outcome of every trial, independent of the clock; return the list of precisions that were tried."""
    tried: list[str] = []

    def judge(trial: PrecisionTrial, rival: Any, parity: float) -> tuple[bool, str]:
        assert trial.first > 0 and trial.rival > 0
        tried.append(rival)
        return faster, "the test says so"

    monkeypatch.setattr(runners, "judge_trial", judge)
    return tried


def end_after(commits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., None] = store.Store.commit
    counted: list[int] = []

    def commit(self: store.Store, *given: Any) -> None:
        if len(counted) == commits:
            raise KeyboardInterrupt
        counted.append(1)
        real(self, *given)

    monkeypatch.setattr(store.Store, "commit", commit)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", None])
def test_the_packed_script_writes_a_submission_in_each_precision(precision: str | None, request_all: Request) -> None:
    given = request_all
    given.out.parent.mkdir()
    command = [sys.executable, given.bundle / "inference.pyz", "--bundle", given.bundle, "--images", given.images]
    command += ["--sample", given.sample, "--out", given.out] + (["--precision", precision] if precision else [])
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert given.sample
    check_valid(given.bundle, given.sample, given.out)
    log = read_log(given)
    if precision:
        assert log["precisions"] == dict.fromkeys(MODELS, precision) and log["notes"] == []
    else:
        for note, (name, chosen) in zip(log["notes"], log["precisions"].items(), strict=True):
            assert note.startswith(f"model {name}: runs in {chosen}: int8 "), "on a CPU, int8 is tried"
            assert note in finished.stderr


def test_predictions_differ_from_fp32_by_the_parity_at_most(request_all: Request, tmp_path: Path) -> None:
    found: dict[str, dict[str, np.ndarray]] = {}
    for precision in ("fp32", "fp16"):
        kept = tmp_path / precision
        assert run(dataclasses.replace(request_all, precision=precision, predictions=kept))  # type: ignore[arg-type]
        found[precision] = {name: np.load(kept / f"{name}.npy").astype(np.float32) for name in MODELS}
    manifest = read_manifest(request_all.bundle / MANIFEST_NAME)
    for model in manifest.models:
        difference = np.abs(found["fp16"][model.name] - found["fp32"][model.name]).max()
        assert 0 < difference < 3 * model.onnx["fp16"].parity + 0.001, "other images than at export, rounded to float16"


@pytest.mark.parametrize("faster", [True, False])
def test_a_killed_run_continues_in_its_precision_and_gives_the_same_bytes(
    faster: bool, request_all: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = "int8" if faster else "fp32"
    whole = dataclasses.replace(request_all, out=tmp_path / "whole" / "s.csv", predictions=tmp_path / "a")
    assert run(dataclasses.replace(whole, precision=chosen))  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        assert decide_trials(faster, patched) == []
        end_after(3, patched)
        with pytest.raises(KeyboardInterrupt):
            run(request_all)
    tried = decide_trials(not faster, monkeypatch)
    assert run(dataclasses.replace(request_all, predictions=tmp_path / "b"))
    assert tried == [], "the precision was already chosen"
    assert read_log(request_all)["precisions"] == dict.fromkeys(MODELS, chosen)
    assert request_all.out.read_bytes() == whole.out.read_bytes()
    for name in MODELS:
        assert (tmp_path / "a" / f"{name}.npy").read_bytes() == (tmp_path / "b" / f"{name}.npy").read_bytes()


def test_a_run_is_not_continued_with_another_precision(request_all: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        end_after(1, patched)
        with pytest.raises(KeyboardInterrupt):
            run(request_all)
    with pytest.raises(StoreError) as error:
        run(dataclasses.replace(request_all, precision="fp32"))
    work = request_all.out.with_name("submission.csv.work")
    assert str(error.value) == (
        f"{work}: found a run with another precision; use --fresh to start over, or restore that precision"
    )


def test_a_precision_that_loses_more_than_the_manifest_allows_is_neither_tried_nor_used(
    request_all: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads((request_all.bundle / MANIFEST_NAME).read_text())
    document["runtime"]["metric_loss"] = 0.002
    for model, loss in zip(document["models"], (0.0021, 0.002, -0.001), strict=True):
        model["onnx"]["int8"]["metric_loss"] = loss
    (request_all.bundle / MANIFEST_NAME).write_text(json.dumps(document))
    tried = decide_trials(True, monkeypatch)
    assert run(request_all)
    wanted = {"everything": "fp32", "culture": "int8", "tag": "int8"}
    assert read_log(request_all)["precisions"] == wanted and tried == ["int8", "int8"]
    assert run(dataclasses.replace(request_all, precision="int8"))
    assert read_log(request_all)["precisions"] == wanted
    reason = "found a loss of 0.0021 of the metric; wanted at most 0.002"
    assert read_log(request_all)["notes"] == [f"model everything: runs in fp32 instead of int8: {reason}"]


def test_a_precision_missing_in_the_bundle_is_noted_but_not_degraded(workshop: Workshop, tmp_path: Path) -> None:
    request = Request(
        workshop.dataset, tmp_path / "s.csv", images=workshop.images, sample=workshop.sample, precision="fp16"
    )
    assert run(request)
    assert read_log(request)["notes"] == [
        f"model {name}: runs in fp32 instead of fp16: no such file" for name in MODELS
    ]


def test_the_bundle_has_all_exported_files(precise: Precise, request_all: Request) -> None:
    names = {f"{name}{kind}.onnx" for name in MODELS for kind in ("", ".fp16", ".int8")}
    assert {path.name for path in request_all.bundle.glob("*.onnx")} == names
