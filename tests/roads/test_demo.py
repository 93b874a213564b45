"""The built-in demo: its zoo, and the full pipeline on it."""

import subprocess
import sys
from pathlib import Path

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
