"""The packed script as a kernel runs it: a subprocess with only the bundle."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, list_bundle_files, read_manifest
from inference.manifest.labels import read_labels
from inference.models.sessions import ModelSession
from inference.task.ids import read_ids
from inference.task.image_places import SUFFIXES
from tests.conftest import ROOT, ZOO, Workshop, check_valid, write_prior_cell, write_rows
from zoo.networks import open_network

SHARED = ROOT.parent / "shared" / "images"
SANDBOX = ROOT / "packing" / "dry_run" / "sandbox.py"


def run_script(workshop: Workshop, out: Path, *more: str, **changed: Path) -> subprocess.CompletedProcess[str]:
    given = {"bundle": workshop.dataset, "images": workshop.images, "sample": workshop.sample, "out": out, **changed}
    command = [sys.executable, "-I", str(SANDBOX), os.pathsep.join(map(str, (workshop.dataset, workshop.images)))]
    command += [str(workshop.dataset / "inference.pyz"), *more]
    for name, path in given.items():
        command += [f"--{name}", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_bundle_alone_writes_a_valid_submission(workshop: Workshop, tmp_path: Path) -> None:
    finished = run_script(workshop, tmp_path / "submission.csv")
    assert finished.returncode == 0, finished.stderr
    check_valid(workshop.dataset, workshop.sample, tmp_path / "submission.csv")
    assert "20/20 images" in finished.stderr
    log = json.loads((tmp_path / "run_log.json").read_text())
    assert log["images"] == 20 and log["unreadable"] == {} and log["providers"] == ["CPUExecutionProvider"]
    assert set(log["passes_per_second"]) == set(ZOO) and min(log["passes_per_second"].values()) > 0
    assert {"check", "prior", "load", "sessions", "predict", "decide", "write", "total"} == set(log["seconds"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run_log.json", "submission.csv"]


def test_the_log_has_the_seconds_from_the_start_to_the_first_prediction(workshop: Workshop, tmp_path: Path) -> None:
    earlier = 1000.0  # seconds of the notebook before it started the script
    spawned = time.monotonic()
    finished = run_script(workshop, tmp_path / "submission.csv", "--started-at", str(spawned - earlier))
    ended = time.monotonic()
    assert finished.returncode == 0, finished.stderr
    log = json.loads((tmp_path / "run_log.json").read_text())
    seconds, first = log["seconds"], log["first_prediction_seconds"] - earlier
    assert seconds["check"] + seconds["prior"] + seconds["load"] < first + 0.01, "after the earlier stages"
    assert first < ended - spawned - seconds["decide"] + 0.01, "before the end"


def test_predictions_equal_torchs_with_timms_transforms_and_both_views(workshop: Workshop, tmp_path: Path) -> None:
    finished = run_script(workshop, tmp_path / "submission.csv", "--predictions", str(tmp_path / "kept"))
    assert finished.returncode == 0, finished.stderr
    ids = read_ids(workshop.sample)
    assert (tmp_path / "kept" / "ids.txt").read_text().split() == ids
    labels = read_labels(workshop.home / "labels.csv", {"culture": "culture::", "tag": "tag::"})
    for model in read_manifest(workshop.manifest).models:
        _, _, size, resize = ZOO[model.name]
        kept = np.load(tmp_path / "kept" / f"{model.name}.npy")
        network = open_network(model, workshop.home, labels).module
        timms = timm.data.create_transform(
            input_size=size,
            is_training=False,
            interpolation=model.interpolation,
            mean=model.mean,
            std=model.std,
            crop_pct=resize.percentage,
            crop_mode="squash" if resize.rule == "squash" else "center",
        )
        pictures = torch.stack([timms(Image.open(workshop.images / f"{name}.png")) for name in ids])
        with torch.inference_mode():
            wanted = (torch.sigmoid(network(pictures)) + torch.sigmoid(network(pictures.flip(3)))) / 2
        assert kept.dtype == np.float16
        assert np.abs(kept - wanted.numpy()).max() < 1e-3, model.name
        assert wanted.std(dim=0).max() > 0.01, "the images must change the predictions"


def test_unreadable_and_missing_images_get_the_prior_labels_and_do_not_change_the_others(
    own_workshop: Workshop, tmp_path: Path
) -> None:
    whole = run_script(own_workshop, tmp_path / "whole.csv")
    assert whole.returncode == 0
    ids = read_ids(own_workshop.sample)
    (own_workshop.images / f"{ids[3]}.png").write_bytes(b"not an image")
    (own_workshop.images / f"{ids[8]}.png").unlink()
    finished = run_script(own_workshop, tmp_path / "submission.csv")
    assert finished.returncode == 0, finished.stderr
    prior = write_prior_cell(own_workshop.manifest)
    wanted = (tmp_path / "whole.csv").read_text().splitlines()
    wanted[4], wanted[9] = f"{ids[3]},{prior}", f"{ids[8]},{prior}"
    assert (tmp_path / "submission.csv").read_text().splitlines() == wanted
    assert f"image {ids[8]} gets the prior labels: no such file in the folder\n" in finished.stderr
    assert sorted(json.loads((tmp_path / "run_log.json").read_text())["unreadable"]) == sorted((ids[3], ids[8]))


@pytest.mark.skipif(not SHARED.is_dir(), reason="requires the folder of shared test images beside this checkout")
def test_odd_and_broken_images_give_one_row_each_and_no_traceback(workshop: Workshop, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    files = [path for path in sorted(SHARED.rglob("*")) if path.suffix in SUFFIXES]
    for index, path in enumerate(files):
        shutil.copyfile(path, images / f"{index:04}{path.suffix}")
    ids = [f"{index:04}" for index in range(len(files))]
    sample = write_rows(tmp_path / "sample.csv", ("id", "attribute_ids"), [(name, "0") for name in ids])
    finished = run_script(workshop, tmp_path / "out" / "submission.csv", images=images, sample=sample)
    assert finished.returncode in (0, 3) and "Traceback" not in finished.stderr, finished.stderr
    assert len(files) > 700 and read_ids(tmp_path / "out" / "submission.csv") == ids
    log = json.loads((tmp_path / "out" / "run_log.json").read_text())
    assert 20 < len(log["unreadable"]) < 400 and log["seconds"]["total"] < 60
    assert log["degraded"] or len(log["unreadable"]) <= len(files) / 10


def test_an_image_that_is_too_large_or_slow_does_not_change_the_others(own_workshop: Workshop, tmp_path: Path) -> None:
    """An image of the largest size allowed takes longer to decode than the time allowed."""
    whole = run_script(own_workshop, tmp_path / "whole.csv")
    assert whole.returncode == 0
    path = own_workshop.dataset / MANIFEST_NAME
    document = json.loads(path.read_text())
    document["runtime"] |= {"max_pixels": 80_000_000, "image_seconds": 0.4}
    path.write_text(json.dumps(document))
    ids = read_ids(own_workshop.sample)
    Image.new("P", (8000, 10_000)).save(own_workshop.images / f"{ids[2]}.png", compress_level=1, transparency=0)
    Image.new("1", (10_000, 8001)).save(own_workshop.images / f"{ids[5]}.png")
    finished = run_script(own_workshop, tmp_path / "submission.csv")
    assert finished.returncode == 0, finished.stderr
    assert json.loads((tmp_path / "run_log.json").read_text())["unreadable"] == {
        ids[2]: f"{ids[2]}.png: took longer than 0.4 s to decode (`runtime.image_seconds`)",
        ids[5]: f"{ids[5]}.png: found 10000x8001 = 80010000 pixels; wanted at most 80000000 (`runtime.max_pixels`)",
    }
    prior = write_prior_cell(path)
    wanted = (tmp_path / "whole.csv").read_text().splitlines()
    wanted[3], wanted[6] = f"{ids[2]},{prior}", f"{ids[5]},{prior}"
    assert (tmp_path / "submission.csv").read_text().splitlines() == wanted


def test_the_script_refuses_and_names_a_declared_file_with_one_changed_byte(
    own_workshop: Workshop, tmp_path: Path
) -> None:
    manifest = read_manifest(own_workshop.dataset / MANIFEST_NAME)
    names = [entry.file for _, entry in list_bundle_files(manifest)]
    assert len(names) == 5
    for name in names:
        path = own_workshop.dataset / name
        whole = path.read_bytes()
        # In the script, change a byte of the first line, so that it still runs.
        place = 20 if name == "inference.pyz" else len(whole) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        finished = run_script(own_workshop, tmp_path / "submission.csv")
        path.write_bytes(whole)
        assert finished.returncode == 1
        assert re.match(rf"error: weights_manifest\.json: `[^`]+`: {path}: found \w+…; wanted \w+…; ", finished.stderr)
    assert not (tmp_path / "submission.csv").exists()


def test_a_folder_of_broken_images_gives_the_prior_labels_and_is_no_complete_run(
    own_workshop: Workshop, tmp_path: Path
) -> None:
    for path in own_workshop.images.iterdir():
        path.write_bytes(b"broken")
    finished = run_script(own_workshop, tmp_path / "submission.csv")
    assert finished.returncode == 3, finished.stderr
    reason = "DEGRADED: 20 of 20 images get the prior labels: they cannot be read; check the folder of images; "
    assert reason in finished.stderr
    given = {line.partition(",")[2] for line in (tmp_path / "submission.csv").read_text().splitlines()[1:]}
    assert given == {write_prior_cell(own_workshop.manifest)}
    assert run_script(own_workshop, tmp_path / "strict.csv", "--strict").returncode == 1


def test_a_time_limit_that_passes_before_the_first_model_gives_the_prior_labels_and_exit_code_3(
    workshop: Workshop, tmp_path: Path
) -> None:
    began = str(time.monotonic() - 100)
    finished = run_script(workshop, tmp_path / "submission.csv", "--time-limit", "60", "--started-at", began)
    assert finished.returncode == 3, finished.stderr
    note = "20 of 20 images get the prior labels: not enough time before the time limit of 1:00"
    assert f"DEGRADED: {note}\n" in finished.stderr
    assert json.loads((tmp_path / "run_log.json").read_text())["degraded"] == [note]
    prior = write_prior_cell(workshop.manifest)
    rows = (tmp_path / "submission.csv").read_text().splitlines()[1:]
    assert rows == [f"{image_id},{prior}" for image_id in read_ids(workshop.sample)]


def test_a_start_in_the_future_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    finished = run_script(workshop, tmp_path / "submission.csv", "--started-at", str(time.monotonic() + 100))
    assert finished.returncode == 1
    wanted = r"wanted a moment of time.monotonic\(\) in the past"
    assert re.fullmatch(rf"error: --started-at: found \d+, \d+ s in the future; {wanted}\n", finished.stderr)


def break_model(workshop: Workshop, *names: str) -> None:
    """Replace the models' files by files that are no ONNX models, and their hashes in the manifest."""
    path = workshop.dataset / MANIFEST_NAME
    document = json.loads(path.read_text())
    for model in document["models"]:
        if model["name"] in names:
            (workshop.dataset / model["onnx"]["fp32"]["file"]).write_bytes(b"no model")
            model["onnx"]["fp32"]["sha256"] = hash_file(workshop.dataset / model["onnx"]["fp32"]["file"])
    path.write_text(json.dumps(document))


def test_the_run_continues_without_a_model_that_does_not_load(own_workshop: Workshop, tmp_path: Path) -> None:
    assert run_script(own_workshop, tmp_path / "a" / "s.csv", "--predictions", str(tmp_path / "all")).returncode == 0
    break_model(own_workshop, "tag")
    finished = run_script(own_workshop, tmp_path / "b" / "s.csv", "--predictions", str(tmp_path / "less"))
    assert finished.returncode == 3
    assert "DEGRADED: model tag: tag.onnx does not load: " in finished.stderr
    assert "; the run continues without this model\n" in finished.stderr
    assert np.isnan(np.load(tmp_path / "less" / "tag.npy")).all()
    for name in ("everything", "culture"):
        assert (tmp_path / "all" / f"{name}.npy").read_bytes() == (tmp_path / "less" / f"{name}.npy").read_bytes()


def test_a_group_without_a_working_model_gets_its_prior_labels(own_workshop: Workshop, tmp_path: Path) -> None:
    break_model(own_workshop, "tag", "everything")
    finished = run_script(own_workshop, tmp_path / "submission.csv")
    assert finished.returncode == 3
    note = "20 of 20 images get the prior labels of tag: no working model for it"
    assert json.loads((tmp_path / "run_log.json").read_text())["degraded"][-1] == note
    manifest = read_manifest(own_workshop.manifest)
    cultures = {"0", "1"}
    rows = [row.split(",")[1].split() for row in (tmp_path / "submission.csv").read_text().splitlines()[1:]]
    prior = set(map(str, manifest.decision.prior["tag"]))
    assert all(set(row) - cultures == prior for row in rows)
    assert all(set(row) & cultures for row in rows), "cultures are predicted"
    break_model(own_workshop, "culture")
    assert run_script(own_workshop, tmp_path / "submission.csv").returncode == 3
    note = "20 of 20 images get the prior labels: no working model for culture and tag"
    assert json.loads((tmp_path / "run_log.json").read_text())["degraded"][-1] == note


def test_strict_makes_a_failing_model_an_error(own_workshop: Workshop, tmp_path: Path) -> None:
    break_model(own_workshop, "tag")
    finished = run_script(own_workshop, tmp_path / "submission.csv", "--strict")
    assert finished.returncode == 1
    assert re.fullmatch(
        r"error: model tag: tag\.onnx does not load: .*; the run continues without this model \(--strict\)\n",
        finished.stderr,
    )


def test_two_runs_give_the_same_bytes(workshop: Workshop, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run_script(workshop, tmp_path / name / "submission.csv").returncode == 0
    assert (tmp_path / "a" / "submission.csv").read_bytes() == (tmp_path / "b" / "submission.csv").read_bytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("images", "no such folder of images; give the folder of the test images with --images"),
        ("sample", "no such file"),
        ("bundle", "no such file; name the manifest, or start one with `build_kernel.py init`"),
    ],
)
def test_missing_input_is_a_one_line_error_and_nothing_is_written(
    changed: str, message: str, workshop: Workshop, tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    finished = run_script(workshop, tmp_path / "out" / "submission.csv", **{changed: absent})
    path = f"{absent}/weights_manifest.json" if changed == "bundle" else absent
    assert (finished.returncode, finished.stderr) == (1, f"error: {path}: {message}\n")
    assert not (tmp_path / "out" / "submission.csv").exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_models_load(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finished = run_script(workshop, tmp_path / "file" / "submission.csv")
    assert finished.returncode == 1
    assert finished.stderr == f"error: {tmp_path}/file: cannot create the folder: File exists\n"


def test_a_read_only_output_folder_is_a_one_line_error(workshop: Workshop) -> None:
    finished = run_script(workshop, workshop.images / "submission.csv")
    message = f"error: {workshop.images}/submission.csv: cannot be written: Read-only file system\n"
    assert (finished.returncode, finished.stderr) == (1, message)


def test_help_works_from_the_script_alone(workshop: Workshop, tmp_path: Path) -> None:
    script = tmp_path / "inference.pyz"
    script.write_bytes((workshop.dataset / "inference.pyz").read_bytes())
    # -S disables site-packages, so that numpy is missing too.
    finished = subprocess.run(
        [sys.executable, "-I", "-S", script, "--help"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0 and "example:" in finished.stdout


def test_errors_name_the_model_whose_output_or_input_has_the_wrong_shape(workshop: Workshop) -> None:
    path = workshop.dataset / "culture.onnx"
    with pytest.raises(Exception, match=r"^model culture: found an output of \(2, 2\); wanted \(2, 3\)$"):
        ModelSession("culture", path, 3, cores=1).predict(np.zeros((2, 48, 48, 3), np.uint8))
    with pytest.raises(Exception, match=r"^model culture fails on a batch of \(2, 9, 9, 3\): "):
        ModelSession("culture", path, 2).predict(np.zeros((2, 9, 9, 3), np.uint8))
    with pytest.raises(Exception, match=r"^model x: labels\.csv does not load: "):
        ModelSession("x", workshop.dataset / "labels.csv", 2)
