"""The built-in demo: its zoo, and the full pipeline on it."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

import build_kernel
from demo import command
from demo.command import STYLE_NETWORKS, STYLES
from inference.manifest.file import MANIFEST_NAME, read_manifest, verify_files
from tests.conftest import ROOT


def test_the_demo_zoo_has_three_small_networks_of_different_architectures() -> None:
    manifest = read_manifest(ROOT / MANIFEST_NAME)
    assert {model.group for model in manifest.models} == {"all", "culture", "tag"}
    assert len({model.architecture for model in manifest.models}) == 3
    for model in manifest.models:
        assert model.checkpoint is not None and model.out_of_fold is not None
        verify_files([("c", model.checkpoint), ("o", model.out_of_fold.scores), ("i", model.out_of_fold.ids)], ROOT)
        assert (ROOT / model.checkpoint.file).stat().st_size < 1.5e6


def test_the_demo_writes_a_valid_submission_and_the_blend_has_a_higher_f2_than_its_models(tmp_path: Path) -> None:
    command = [sys.executable, "build_kernel.py", "demo", "--out", str(tmp_path / "demo")]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert len((tmp_path / "demo" / "submission.csv").read_text().splitlines()) == 601
    table = {line[:34].strip(): line[34:].split() for line in finished.stdout.splitlines() if line[34:].strip()}
    everything, one, apart = (
        float(table[name][0])
        for name in ("everything: test_resnet", "blend, one threshold", "blend, one threshold per group")
    )
    assert one > everything and apart > everything and apart > 0.8
    for column, name in ((1, "culture: test_efficientnet"), (2, "tag: test_byobnet")):
        single = next(float(cell) for cell in table[name] if cell != "-")
        assert float(table["blend, one threshold per group"][column]) > single


def test_the_demo_as_another_competition_prints_the_accuracy_of_its_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.setattr(command, "TEST_IMAGES", 40)
    assert build_kernel.main(["demo", "--task", "multiclass", "--out", str(tmp_path)]) == 0
    table = {line[:34].strip(): line[34:].strip() for line in capsys.readouterr().out.splitlines()}
    answers, truth = (read_rows(tmp_path / name) for name in ("submission.csv", "museum/truth.csv"))
    assert answers[0] == truth[0] == ["image_id", "culture"] and len(answers) == 41
    accuracy = sum(answer == true for answer, true in zip(answers[1:], truth[1:], strict=True)) / 40
    assert table["submission"] == f"{accuracy:.4f}" and accuracy > 0.9
    assert {f"{name}: {architecture}" for name, architecture, _ in STYLE_NETWORKS} | {"blend"} <= table.keys()


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_networks_of_the_other_competition_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in STYLES.iterdir()}
    assert {name.partition(".")[0] for name in sizes} == {name for name, *_ in STYLE_NETWORKS}
    assert sum(sizes.values()) < 0.8e6
