"""Bundles whose models lie in a dataset of somebody else: packed, checked, and run as the packed script."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from inference.basics.errors import ManifestError, PackError
from inference.manifest.file import MANIFEST_NAME, read_manifest
from packing.check.check import check_bundle
from packing.dry_run.run_script import rehearse
from packing.pack.metadata import KERNEL_METADATA
from packing.pack.write_bundle import pack
from packing.upload.upload import prepare_upload
from tests.conftest import NAMES, Workshop

DATASET = "bob/zoo-of-bob"
MISSING = (
    f"weights_manifest.json: dataset {DATASET} is not attached, which has the models everything, culture; attach it "
    f"with Add Input in the notebook, or name its folder with --attached {DATASET}=DIR"
)


@dataclass(frozen=True)
class Attached:
    """A bundle, and the local copy of the dataset that has two of its models under other names."""

    bundle: Path
    copy: Path

    @property
    def dataset(self) -> Path:
        return self.bundle / "dataset"


@pytest.fixture
def attached(workshop: Workshop, tmp_path: Path) -> Attached:
    copy = tmp_path / "zoo of bob"
    copy.mkdir()
    for name in ("everything", "culture"):
        shutil.copyfile(workshop.onnx / f"{name}.onnx", copy / f"bobs_{name}.onnx")
    (copy / "unrelated.onnx").write_bytes(b"x")
    pack(workshop.manifest, workshop.onnx, tmp_path / "bundle", NAMES, attach={DATASET: copy})
    return Attached(tmp_path / "bundle", copy)


def run(bundle: Attached, workshop: Workshop, out: Path, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the packed script."""
    command = [sys.executable, str(bundle.dataset / "inference.pyz"), "--bundle", str(bundle.dataset)]
    command += ["--competition", str(workshop.competition), "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_files_of_an_attached_dataset_are_not_copied(attached: Attached, workshop: Workshop) -> None:
    assert sorted(path.name for path in attached.dataset.glob("*.onnx")) == ["tag.onnx"]
    entries = {model.name: model.onnx["fp32"] for model in read_manifest(attached.dataset / MANIFEST_NAME).models}
    assert {name: (entry.file, entry.dataset) for name, entry in entries.items()} == {
        "everything": ("bobs_everything.onnx", DATASET),
        "culture": ("bobs_culture.onnx", DATASET),
        "tag": ("tag.onnx", None),
    }
    metadata = json.loads((attached.bundle / "kernel" / KERNEL_METADATA).read_text())
    assert metadata["dataset_sources"] == [NAMES.dataset_id, DATASET]
    check_bundle(attached.bundle, {DATASET: attached.copy})
    prepared = prepare_upload(attached.bundle, {DATASET: attached.copy})
    assert prepared.dataset_id == NAMES.dataset_id and prepared.dataset == attached.dataset
    with pytest.raises(ManifestError) as error:
        check_bundle(attached.bundle)
    assert str(error.value) == (MISSING)
    metadata["dataset_sources"].remove(DATASET)
    (attached.bundle / "kernel" / KERNEL_METADATA).write_text(json.dumps(metadata))
    with pytest.raises(PackError) as found:
        check_bundle(attached.bundle, {DATASET: attached.copy})
    assert str(found.value) == (
        f"{attached.bundle}/kernel/kernel-metadata.json: `dataset_sources`: found ['{NAMES.dataset_id}']; wanted "
        f"{DATASET} in it"
    )


def test_the_packed_script_reads_them_there(attached: Attached, workshop: Workshop, tmp_path: Path) -> None:
    rehearse(workshop.dataset, workshop.competition, tmp_path / "whole", limit=6)
    rehearse(attached.dataset, workshop.competition, tmp_path / "own", limit=6, attached={DATASET: attached.copy})
    assert (tmp_path / "own" / "submission.csv").read_bytes() == (tmp_path / "whole" / "submission.csv").read_bytes()


def test_a_model_that_somebody_has_changed_is_left_out_as_long_as_others_cover_its_groups(
    attached: Attached, workshop: Workshop, tmp_path: Path
) -> None:
    out, options = tmp_path / "out" / "submission.csv", [f"--attached={DATASET}={attached.copy}"]
    out.parent.mkdir()
    (attached.copy / "bobs_everything.onnx").write_bytes(b"newer")
    ended = run(attached, workshop, out, options)
    assert ended.returncode == 3
    wanted = (
        f"DEGRADED: model everything: weights_manifest.json: `models[0].onnx.fp32.sha256`: {attached.copy}/"
        "bobs_everything.onnx: found "
    )
    assert wanted in ended.stderr and "the run continues without this model" in ended.stderr
    assert f"dataset {DATASET} has changed; attach the version that was packed, or pack again" in ended.stderr
    # As if the model had failed to load.
    (attached.copy / "bobs_culture.onnx").unlink()
    ended = run(attached, workshop, out, options)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: model everything: ")
    assert ended.stderr.endswith("; no other model covers the group culture\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [],
            f"error: {MISSING}",
        ),
        (["--attached=bob=x"], "error: argument --attached: found 'bob=x'; wanted OWNER/SLUG=DIR"),
        (
            ["--attached=bob/a=x", "--attached=bob/a=y"],
            "error: argument --attached: found dataset bob/a twice; wanted it once",
        ),
    ],
)
def test_a_missing_dataset_ends_the_run_at_once(
    options: list[str], message: str, attached: Attached, workshop: Workshop, tmp_path: Path
) -> None:
    ended = run(attached, workshop, tmp_path / "submission.csv", options)
    assert ended.returncode in (1, 2) and ended.stderr.strip().endswith(message)
    assert not (tmp_path / "submission.csv").exists()


def test_a_dataset_without_any_of_the_files_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for attach, message in (
        (
            {DATASET: tmp_path / "copy"},
            f"--attach: {tmp_path}/copy: found none of the models' files by sha256; wanted a copy of the dataset "
            f"{DATASET}",
        ),
        (
            {DATASET: tmp_path / "none"},
            f"--attach: {tmp_path}/none: no such folder; wanted a local copy of the dataset",
        ),
        (
            {NAMES.dataset_id: tmp_path / "copy"},
            f"--attach: {NAMES.dataset_id} is the bundle's own dataset; give the bundle another --slug",
        ),
    ):
        with pytest.raises(PackError) as error:
            pack(workshop.manifest, workshop.onnx, tmp_path / "bundle", NAMES, attach=attach)
        assert str(error.value) == message
        assert not (tmp_path / "bundle").exists()
