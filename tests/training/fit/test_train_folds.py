import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from sklearn.metrics import fbeta_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from inference.manifest.file import read_manifest, verify_files
from inference.manifest.model import list_members
from tests.conftest import ROOT
from tests.training.small_tasks import CLASSES, NUMBERS, Competition, make_competition
from training.__main__ import main
from training.fit import loop
from training.fit.train_folds import hide_rare_labels
from zoo.commands import INTERRUPTED

RECIPE = {
    "architecture": "test_resnet",
    "image_size": 32,
    "group": "culture",
    "folds": 3,
    "epochs": 1,
    "batch_size": 16,
}


def write_recipe(folder: Path, name: str = "blue", **changes: object) -> Path:
    """Write a small recipe; a change TABLE__KEY sets a key of a table."""
    tables: dict[str, dict[str, object]] = {}
    lines = []
    for key, value in {**RECIPE, **changes}.items():
        table, _, inner = key.partition("__")
        if inner:
            tables.setdefault(table, {})[inner] = value
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def run_fit(museum: Path, recipe: Path, out: Path, *options: str) -> int:
    return main(["fit", str(recipe), "--data", str(museum), "--out", str(out), "--workers", "0", *options])


def read_bytes(out: Path, name: str) -> list[bytes]:
    return [(out / (name + suffix)).read_bytes() for suffix in (".safetensors", ".oof.npy", ".oof.ids.txt")]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_truth(museum: Path) -> dict[str, list[int]]:
    rows = read_rows(museum / "train.csv")
    return {row["id"]: [int(word) for word in row["attribute_ids"].split()] for row in rows}


@pytest.fixture(scope="module")
def zoo(museum: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with three folds of one recipe."""
    folder = tmp_path_factory.mktemp("fit")
    assert run_fit(museum, write_recipe(folder), folder / "zoo") == 0
    return folder / "zoo"


def predict_with_timm(museum: Path, out: Path, name: str, **transform: object) -> np.ndarray:
    """Return the mean over the image and its mirror image, by timm's network and evaluation transform."""
    network = timm.create_model("test_resnet", pretrained=False, num_classes=3).eval()
    network.load_state_dict(load_file(out / f"{name}.safetensors"))
    timms = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    show = create_transform(**{**timms, "input_size": (3, 32, 32), "crop_pct": 1.0, **transform}, is_training=False)
    answers = []
    with torch.inference_mode():
        for image in (out / f"{name}.oof.ids.txt").read_text().split():
            picture = show(Image.open(museum / "train" / f"{image}.png").convert("RGB"))
            answers.append(network(torch.stack([picture, picture.flip(2)])).sigmoid().mean(dim=0).numpy())
    return np.stack(answers)


def test_each_image_is_predicted_once_by_the_network_that_did_not_see_it(museum: Path, zoo: Path) -> None:
    owners = {row["id"]: row["fold"] for row in read_rows(zoo / "folds.csv")}
    assert owners.keys() == read_truth(museum).keys()
    for fold in range(3):
        held_out = [image for image in read_truth(museum) if owners[image] == str(fold)]
        assert (zoo / f"blue_f{fold}.oof.ids.txt").read_text().split() == held_out


def test_the_predictions_equal_timms_mean_over_the_image_and_its_mirror_image(museum: Path, zoo: Path) -> None:
    scores = np.load(zoo / "blue_f1.oof.npy")
    expected = predict_with_timm(museum, zoo, "blue_f1", crop_mode="squash")
    assert (scores.dtype, scores.shape) == (np.float16, expected.shape)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=5e-4)


def test_the_centre_crop_equals_timms_and_a_cache_changes_no_prediction(museum: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "crop", resize__rule="crop", resize__percentage=0.8, cache=20)
    assert run_fit(museum, recipe, tmp_path, "--fold", "1") == 0
    expected = predict_with_timm(museum, tmp_path, "crop_f1", crop_mode="center", crop_pct=0.8)
    np.testing.assert_allclose(np.load(tmp_path / "crop_f1.oof.npy"), expected, rtol=0, atol=5e-4)


def test_the_manifest_declares_every_network_with_its_files(zoo: Path) -> None:
    manifest = read_manifest(zoo / "weights_manifest.json")
    assert [(model.name, model.fold, model.group) for model in manifest.models] == [
        (f"blue_f{fold}", fold, "culture") for fold in range(3)
    ]
    for model in manifest.models:
        assert model.checkpoint is not None and model.out_of_fold is not None
        verify_files([("w", model.checkpoint), ("s", model.out_of_fold.scores), ("i", model.out_of_fold.ids)], zoo)
    assert list_members(manifest.models) == {"blue": list(manifest.models)}
    assert manifest.ensemble.weights["culture"] == {"blue_f0": 1.0, "blue_f1": 1.0, "blue_f2": 1.0}


def test_no_other_files_are_left(zoo: Path) -> None:
    suffixes = (".metrics.csv", ".oof.ids.txt", ".oof.npy", ".safetensors")
    files = {f"blue_f{fold}{suffix}" for fold in range(3) for suffix in suffixes}
    assert {path.name for path in zoo.iterdir()} == files | {
        "labels.csv", "folds.csv", "tensorboard", "weights_manifest.json"
    }  # fmt: skip


def test_the_zoo_can_be_exported_unchanged(museum: Path, tmp_path: Path) -> None:
    assert run_fit(museum, write_recipe(tmp_path, group="all"), tmp_path, "--fold", "2") == 0
    options = ["--manifest", str(tmp_path / "weights_manifest.json"), "--out", str(tmp_path / "onnx")]
    command = [sys.executable, "build_kernel.py", "export", *options, "--images", str(museum / "train")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (model,) = read_manifest(tmp_path / "onnx" / "weights_manifest.json").models
    assert (model.name, model.fold, list(model.onnx)) == ("blue_f2", 2, ["fp32", "fp16"])


def test_the_printed_f2_equals_scikit_learns_at_the_best_threshold(
    museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_fit(museum, write_recipe(tmp_path, precision="fp32"), tmp_path / "zoo", "--fold", "1") == 0
    scores = np.load(tmp_path / "zoo" / "blue_f1.oof.npy").astype(np.float32)
    wanted = read_truth(museum)
    ids = (tmp_path / "zoo" / "blue_f1.oof.ids.txt").read_text().split()
    truth = np.array([[label in wanted[image] for label in range(3)] for image in ids])
    rows = truth.any(axis=1)
    best = max(
        fbeta_score(truth[rows], scores[rows] >= np.float32(step / 200), beta=2, average="samples", zero_division=0)
        for step in range(1, 200)
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"blue_f1: F2 of culture {best:.4f} on {len(ids)} held-out images, thresholds fitted to them"


def test_only_the_same_seed_gives_the_same_bytes(museum: Path, zoo: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        recipe = write_recipe(tmp_path / str(seed), seed=seed)
        assert run_fit(museum, recipe, tmp_path / str(seed), "--fold", "1", "--folds", str(zoo / "folds.csv")) == 0
    first, same, other = (read_bytes(out, "blue_f1") for out in (zoo, tmp_path / "0", tmp_path / "1"))
    assert first == same
    assert first[0] != other[0] and first[1] != other[1]


def stop_after(steps: int) -> Callable[..., float]:
    """Return a take_step that raises KeyboardInterrupt after `steps` calls."""
    left, take_step = iter(range(steps)), loop.take_step

    def stop(*arguments: Any) -> float:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return take_step(*arguments)

    return stop


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2, "batch_size": 4, "ema": 0.9},
        {"epochs": 2, "batch_size": 4, "accumulate": 3, "schedule__name": "cosine", "optimizer__name": "adamw"},
        {"epochs": 2, "batch_size": 8, "optimizer__name": "sgd", "schedule__name": "constant", "cache": 40}
        | {"keep": "best", "augmentation__mixup": 0.4, "augmentation__cutmix": 1.0},
    ],
    ids=["average", "accumulation", "constant rate, mixed images, best epoch"],
)
def test_an_interrupted_and_resumed_training_equals_an_uninterrupted_one(
    museum: Path, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    recipe = write_recipe(tmp_path, **changes)
    options = ["--fold", "0", "--folds", str(zoo / "folds.csv"), "--save-minutes", "0"]
    assert run_fit(museum, recipe, tmp_path / "whole", *options) == 0
    for cut in (2, 5):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "take_step", stop_after(cut))
            assert run_fit(museum, recipe, tmp_path / "cut", *options, "--resume") == INTERRUPTED
    assert (tmp_path / "cut" / "blue_f0.state").exists()
    assert run_fit(museum, recipe, tmp_path / "cut", *options, "--resume") == 0
    assert read_bytes(tmp_path / "cut", "blue_f0") == read_bytes(tmp_path / "whole", "blue_f0")
    assert not (tmp_path / "cut" / "blue_f0.state").exists()
    tables = [read_rows(tmp_path / run / "blue_f0.metrics.csv") for run in ("whole", "cut")]
    assert [(row["loss"], row["f2_culture"]) for row in tables[0]] == [
        (row["loss"], row["f2_culture"]) for row in tables[1]
    ]


def test_a_killed_and_resumed_run_gives_the_bytes_of_an_uninterrupted_one(
    museum: Path, zoo: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, epochs=8, batch_size=4, validation=4)
    options = ["--fold", "0", "--folds", str(zoo / "folds.csv")]
    command = [sys.executable, "-m", "training", "fit", str(recipe), "--data", str(museum), *options]
    killed = tmp_path / "killed"
    state = killed / "blue_f0.state"
    with subprocess.Popen(
        [*command, "--out", str(killed), "--save-minutes", "0"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as in this process, because sums depend on the number of threads
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        while not state.exists() and run.poll() is None:
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL, "the run ended before it was killed"
    assert state.exists() and not (killed / "blue_f0.safetensors").exists()
    for out in (killed, tmp_path / "whole"):
        assert run_fit(museum, recipe, out, *options, "--resume") == 0
    assert read_bytes(killed, "blue_f0") == read_bytes(tmp_path / "whole", "blue_f0")


def test_resume_skips_finished_folds_and_without_it_nothing_is_overwritten(
    museum: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in zoo.iterdir()}
    recipe = zoo.parent / "blue.toml"
    assert run_fit(museum, recipe, zoo, "--resume") == 0
    assert f"blue_f2: already in {zoo}/weights_manifest.json; skipped" in capsys.readouterr().out
    assert run_fit(museum, recipe, zoo) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {zoo}/blue_f0.safetensors: already exists; continue with --resume")
    assert before == {path.name: path.stat().st_mtime_ns for path in zoo.iterdir()}


def test_a_state_of_another_recipe_is_refused_with_the_key_that_differs(
    museum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    recipe = write_recipe(tmp_path, epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr("training.fit.train_folds.Report.write_epochs", stop)
        assert run_fit(museum, recipe, tmp_path / "zoo", "--fold", "0", "--save-minutes", "0") == INTERRUPTED
    recipe = write_recipe(tmp_path, epochs=2, optimizer__learning_rate=0.5)
    state = tmp_path / "zoo" / "blue_f0.state"
    assert state.exists()
    assert run_fit(museum, recipe, tmp_path / "zoo", "--fold", "0", "--resume") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {state}: saved by another training: `optimizer.learning_rate`: found 0.001; wanted 0.5; "
        "resume with the settings that it was started with, or remove it to start over"
    )
    state.write_bytes(b"nonsense")
    assert run_fit(museum, recipe, tmp_path / "zoo", "--fold", "0", "--resume") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {state}: not a saved state: ")


def test_the_error_for_a_loss_that_is_not_finite_names_the_step_and_the_last_state(
    museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, batch_size=8, optimizer__learning_rate=1e20, schedule__name="constant")
    assert run_fit(museum, recipe, tmp_path / "zoo", "--fold", "0") == 1
    assert re.fullmatch(
        r"error: epoch 1, step [2-5] of 5: the loss is (nan|inf); no state was written yet; "
        r"try a lower `optimizer.learning_rate`",
        capsys.readouterr().err.splitlines()[-1],
    )
    assert not list((tmp_path / "zoo").glob("*.safetensors"))
    assert run_fit(museum, recipe, tmp_path / "other", "--fold", "0", "--save-minutes", "0") == 1
    assert f"the last good state is {tmp_path}/other/blue_f0.state; " in capsys.readouterr().err


def test_a_full_disk_is_an_error_and_leaves_no_partial_file(
    museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, content: Any) -> int:
        with path.open("wb") as file:
            file.write(bytes(content)[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert run_fit(museum, write_recipe(tmp_path), tmp_path / "zoo", "--fold", "0") == 1
    path = tmp_path / "zoo" / "blue_f0.state"
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {path}: cannot be written: No space left on device"
    assert not [file.name for file in (tmp_path / "zoo").iterdir() if ".state" in file.name]


def test_epochs_are_logged_to_a_table_and_tensorboard_and_the_loss_falls(museum: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, group="all", epochs=6, optimizer__learning_rate=0.01)
    assert run_fit(museum, recipe, tmp_path / "zoo", "--fold", "0") == 0
    rows = read_rows(tmp_path / "zoo" / "blue_f0.metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert list(rows[0]) == ["epoch", "loss", "seconds", "waiting", "f2", "f2_culture", "f2_tag"]
    assert float(rows[-1]["loss"]) < 0.9 * float(rows[0]["loss"])
    assert all(0 < float(row["waiting"]) < 1 for row in rows)
    events = EventAccumulator(str(tmp_path / "zoo" / "tensorboard" / "blue_f0")).Reload()
    assert [event.step for event in events.Scalars("f2")] == [1, 2, 3, 4, 5, 6]
    assert events.Scalars("loss")[-1].value == pytest.approx(float(rows[-1]["loss"]), rel=1e-4)


def test_the_rounded_weights_make_the_predictions(
    museum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The effect of fp16 is too small in this network, so the test rounds all weights to 0.
    def round_away(module: torch.nn.Module, _: str) -> dict[str, torch.Tensor]:
        return {name: torch.zeros(tensor.shape) for name, tensor in module.state_dict().items()}

    monkeypatch.setattr("training.fit.train_folds.round_weights", round_away)
    assert run_fit(museum, write_recipe(tmp_path), tmp_path, "--fold", "0") == 0
    assert set(np.load(tmp_path / "blue_f0.oof.npy").ravel()) == {0.5}


def test_checkpoints_are_fp16_by_default(museum: Path, zoo: Path, tmp_path: Path) -> None:
    assert run_fit(museum, write_recipe(tmp_path, precision="fp32"), tmp_path, "--fold", "0") == 0
    half, whole = (load_file(folder / "blue_f0.safetensors") for folder in (zoo, tmp_path))
    assert {tensor.dtype for tensor in half.values()} == {torch.float16, torch.int64}
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32, torch.int64}


def test_rare_labels_are_hidden_from_training_only() -> None:
    targets = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 1], [0, 1, 1]], np.bool_)
    shown, hidden = hide_rare_labels(targets, np.array([0, 1, 2]), 2)
    assert hidden == 1
    assert shown.tolist() == [[True, False, False], [True, False, True], [True, False, True], [False, False, True]]
    assert hide_rare_labels(targets, np.array([0, 1, 2]), 0)[1] == 0


def test_unreadable_images_are_skipped_and_missing_ones_need_an_option(
    museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(museum, tmp_path / "data"))
    names = list(read_truth(museum))
    for name in names[:6]:
        (data / "train" / f"{name}.png").unlink()
    (data / "train" / f"{names[6]}.png").write_bytes(b"no picture")
    recipe = write_recipe(tmp_path)
    assert run_fit(data, recipe, tmp_path / "zoo") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {data}/train: no file for 6 of the 60 images of train.csv, such as {', '.join(names[:5])}; "
        "add them, or skip them with --allow-missing"
    )
    assert run_fit(data, recipe, tmp_path / "zoo", "--allow-missing", "--fold", "0") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    assert lines[0] == "skipped 6 images without a file"
    assert lines[1].startswith(f"skipped 1 unreadable images: {names[6]}.png: found text; ")
    held_out = (tmp_path / "zoo" / "blue_f0.oof.ids.txt").read_text().split()
    assert held_out and not set(names[:7]) & set(held_out)


def run_task(competition: Competition, recipe: Path, *options: str) -> int:
    """Train on a competition whose tables lie in its zoo."""
    assert not (competition.data / "train.csv").exists()
    return run_fit(competition.data, recipe, competition.zoo, *options)


def predict_task(competition: Competition, name: str, outputs: int) -> torch.Tensor:
    """Return the outputs of timm's network for the image and its mirror image, (2, held-out images, outputs)."""
    network = timm.create_model("test_resnet", pretrained=False, num_classes=outputs).eval()
    network.load_state_dict(load_file(competition.zoo / f"{name}.safetensors"))
    timms = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    show = create_transform(**{**timms, "input_size": (3, 32, 32), "crop_pct": 1.0, "crop_mode": "squash"})
    ids = (competition.zoo / f"{name}.oof.ids.txt").read_text().splitlines()
    folder = competition.data / "train pictures"
    pictures = torch.stack([show(Image.open(folder / image).convert("RGB")) for image in ids])
    with torch.inference_mode():
        return torch.stack([network(pictures), network(pictures.flip(3))])


def read_cells(competition: Competition, name: str, column: str) -> list[str]:
    """Return the truth of the images that a network held out, in the order of its predictions."""
    cells = {row["id"]: row[column] for row in read_rows(competition.zoo / "train.csv")}
    return [cells[image] for image in (competition.zoo / f"{name}.oof.ids.txt").read_text().splitlines()]


def test_classes_are_trained_with_mixed_images_and_the_best_epoch_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_competition(tmp_path, CLASSES)
    mixed = {"augmentation__mixup": 0.4, "augmentation__cutmix": 1.0, "optimizer__learning_rate": 0.01}
    mixed |= {"schedule__name": "constant"}
    recipe = write_recipe(
        tmp_path, group="all", folds=2, epochs=4, batch_size=8, keep="best", precision="fp32", **mixed
    )
    assert run_task(made, recipe, "--fold", "1") == 0
    scores = np.load(made.zoo / "blue_f1.oof.npy")
    expected = predict_task(made, "blue_f1", 3).softmax(dim=2).mean(dim=0)
    np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=1e-3)
    assert scores.dtype == np.float16
    hits = scores.argmax(axis=1) == np.array([int(cell) for cell in read_cells(made, "blue_f1", "labels")])
    rows = read_rows(made.zoo / "blue_f1.metrics.csv")
    best = max(float(row["accuracy"]) for row in rows)
    assert best > float(rows[-1]["accuracy"])  # so that the last epoch would fail the test
    assert hits.mean() == pytest.approx(best, abs=1e-5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"blue_f1: accuracy {hits.mean():.4f} on {len(hits)} held-out images"
    assert read_manifest(made.manifest).task == CLASSES


def test_soft_labels_are_learnt(tmp_path: Path) -> None:
    made = make_competition(tmp_path, CLASSES, soft=True)
    recipe = write_recipe(tmp_path, group="all", folds=2, epochs=6, batch_size=8, optimizer__learning_rate=0.02)
    assert run_task(made, recipe, "--fold", "0") == 0
    truth = torch.tensor([[float(share) for share in cell.split()] for cell in read_cells(made, "blue_f0", "targets")])
    scores = torch.from_numpy(np.load(made.zoo / "blue_f0.oof.npy")).float()
    constant = truth.mean(dim=0).expand_as(truth)
    loss, other = (torch.nn.functional.cross_entropy(part.log(), truth) for part in (scores, constant))
    assert loss < other
    assert scores.max() < 0.95  # hard targets would give more


def test_numbers_are_trained_in_the_range_and_scored_in_the_competitions_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_competition(tmp_path, NUMBERS)
    recipe = write_recipe(tmp_path, group="all", folds=2, epochs=2, batch_size=8)
    assert run_task(made, recipe, "--fold", "0") == 0
    scores = np.load(made.zoo / "blue_f0.oof.npy")
    np.testing.assert_allclose(scores, predict_task(made, "blue_f0", 1).mean(dim=0).numpy(), rtol=0, atol=1e-3)
    assert scores.dtype == np.float32
    sides = np.array([float(cell) for cell in read_cells(made, "blue_f0", "value")])
    error = np.sqrt(np.mean((40 * scores[:, 0].astype(np.float64) - sides) ** 2))
    assert error < 15  # the head starts at the mean
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"blue_f0: RMSE {error:.4f} on {len(sides)} held-out images"
    for path in made.zoo.glob("*.oof.*"):
        path.unlink()
    assert main(["oof", "--manifest", str(made.manifest), "--data", str(made.data), "--workers", "0"]) == 0
    np.testing.assert_allclose(np.load(made.zoo / "blue_f0.oof.npy"), scores, rtol=0, atol=1e-4)


def test_images_are_trained_on_upright_by_their_exif_orientation(museum: Path, zoo: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(museum, tmp_path / "data"))
    for path in (data / "train").iterdir():
        with Image.open(path) as picture:
            exif = Image.Exif()
            exif[0x0112] = 3
            ImageOps.flip(ImageOps.mirror(picture)).save(path, exif=exif)
    assert run_fit(data, zoo.parent / "blue.toml", tmp_path / "zoo", "--fold", "1") == 0
    assert read_bytes(tmp_path / "zoo", "blue_f1") == read_bytes(zoo, "blue_f1")


def test_a_student_learns_only_from_the_teacher_of_its_fold(
    museum: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = {"teacher__manifest": str(zoo / "weights_manifest.json"), "teacher__model": "blue", "teacher__weight": 9.0}
    options = ["--fold", "1", "--folds", str(zoo / "folds.csv")]
    assert run_fit(museum, write_recipe(tmp_path, **taught), tmp_path / "zoo", *options) == 0
    assert read_bytes(tmp_path / "zoo", "blue_f1")[0] != read_bytes(zoo, "blue_f1")[0]
    stronger = write_recipe(tmp_path / "stronger", **{**taught, "teacher__weight": 90.0})
    assert run_fit(museum, stronger, tmp_path / "stronger", *options) == 0
    assert read_bytes(tmp_path / "stronger", "blue_f1")[0] != read_bytes(tmp_path / "zoo", "blue_f1")[0]
    for model, message in (
        ("blue_f0", "`teacher.model`: blue_f0 held out fold 0; wanted fold 1, because other teachers "),
        ("red", f"`teacher.model`: no member or model red in {zoo}/weights_manifest.json; it has blue"),
    ):  # fmt: skip
        recipe = write_recipe(tmp_path, "other", **{**taught, "teacher__model": model})
        assert run_fit(museum, recipe, tmp_path / "zoo", *options) == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"architecture": "zzz"}, [], f"`architecture`: found 'zzz'; wanted a network of timm {timm.__version__}; timm.list_models() lists the names"),
        ({"architecture": "resnet10tt"}, [], f"`architecture`: found 'resnet10tt'; wanted a network of timm {timm.__version__}; did you mean resnet10t or "),
        ({"architecture": "test_vit", "image_size": 33}, [], "`image_size`: test_vit does not take 33 px: "),
        ({"group": "medium"}, [], "`group`: found 'medium'; wanted 'all' or a group of labels.csv: culture, tag"),
        ({"optimizer__name": "adamm"}, [], "`optimizer.name`: found 'adamm'; wanted one of timm.optim.list_optimizers(), such as adam"),
        ({}, ["--fold", "3"], "--fold: found 3; wanted 0 to 2, the folds of the recipe"),
        ({"folds": 61}, [], "`folds`: found 61; wanted at most the number of images, 60"),
        ({"folds": 4}, ["--folds", "{zoo}/folds.csv"], "{zoo}/folds.csv: found 3 folds; wanted 4 as in the recipe {recipe}; "),
        ({"epoch": 1}, [], "{recipe}: `epoch`: unknown key; did you mean `epochs`?"),
    ],
)  # fmt: skip
def test_invalid_settings_are_refused_in_one_line(
    changes: dict[str, object], options: list[str], message: str,
    museum: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe = write_recipe(tmp_path, **changes)
    formatted = [option.format(zoo=zoo) for option in options]
    assert run_fit(museum, recipe, tmp_path / "zoo", *formatted) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message.format(zoo=zoo, recipe=recipe)}")
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train.csv", None, "{data}/train.csv: no such file; wanted a table with the columns id and attribute_ids"),
        ("train.csv", "id,tags\na,1\n", "{data}/train.csv: no `attribute_ids` column; found id, tags"),
        ("train.csv", "id,attribute_ids\n", "{data}/train.csv: has no row; wanted one for each image"),
        ("train.csv", "id,attribute_ids\na,3 9\n", "{data}/train.csv: image a: found attribute_ids '3 9'; label 9 is not in labels.csv"),
        ("train.csv", "id,attribute_ids\na,3 x\n", "{data}/train.csv: image a: found attribute_ids '3 x'; wanted ids or names of labels; correct the cell, or leave it empty for no label"),
        ("train.csv", "id,attribute_ids\na,3\na,4\n", "{data}/train.csv: found image a twice; wanted unique ids"),
        ("train.csv", "id,attribute_ids\na,3\nb,4\nc,3\nd,4\n", "{data}/train: holds none of the 4 images of train.csv; wanted files such as a.png"),
        ("labels.csv", None, "{data}/labels.csv: no such file"),
        ("labels.csv", "attribute_id,attribute_name\nx,tag::red\n", "{data}/labels.csv: found attribute_id 'x'; wanted a whole number"),
    ],
)  # fmt: skip
def test_invalid_tables_are_refused_in_one_line(
    file: str, text: str | None, message: str, museum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(museum, tmp_path / "data"))
    (data / file).unlink()
    if text is not None:
        (data / file).write_text(text)
    assert run_fit(data, write_recipe(tmp_path, group="tag"), tmp_path / "zoo") == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message.format(data=data)}"


def test_networks_that_could_not_be_declared_are_refused_before_training(
    museum: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("training.fit.train_folds.train_network", train)
    recipe, own = zoo.parent / "blue.toml", tmp_path / "own"
    # The manifest's folder does not contain the files to declare.
    (tmp_path / "elsewhere").mkdir()
    elsewhere = str(tmp_path / "elsewhere" / "weights_manifest.json")
    assert run_fit(museum, recipe, own, "--manifest", elsewhere) == 1
    assert "lies outside the manifest's folder" in capsys.readouterr().err.splitlines()[-1]
    # Networks of the same recipe have another size.
    older = Path(shutil.copytree(zoo, tmp_path / "older"))
    document = json.loads((older / "weights_manifest.json").read_text())
    document["models"].pop()
    document["ensemble"]["weights"]["culture"].pop("blue_f2")
    (older / "weights_manifest.json").write_text(json.dumps(document))
    larger = write_recipe(tmp_path, image_size=[32, 48])
    assert run_fit(museum, larger, older, "--fold", "2", "--resume") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {older}/weights_manifest.json: `models`: blue_f0, blue_f1, blue_f2 are folds of the member blue but see "
        "32x32 and 32x48; wanted the same; give one another `member`; or rename the recipe"
    )
    # The manifest has a network of this name, but its files are gone.
    manifest = Path(shutil.copytree(zoo, tmp_path / "zoo")) / "weights_manifest.json"
    for path in manifest.parent.glob("*.safetensors"):
        path.unlink()
    assert run_fit(museum, recipe, manifest.parent) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {manifest}: blue_f0: already exists; continue with --resume")
    # The manifest has other labels.
    lines = (museum / "labels.csv").read_text().splitlines()
    (manifest.parent / "old.csv").write_text("\n".join([*lines, "7,tag::new", ""]))
    document = json.loads(manifest.read_text())
    document["labels"] |= {
        "file": "old.csv",
        "sha256": hashlib.sha256((manifest.parent / "old.csv").read_bytes()).hexdigest(),
    }
    document["models"] = []
    document["ensemble"] = {"weights": {"culture": {}, "tag": {}}}
    manifest.write_text(json.dumps(document))
    assert run_fit(museum, recipe, manifest.parent) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {manifest}: its labels differ from {manifest.parent}/labels.csv; choose another --manifest"
    )


def test_another_split_than_the_zoos_is_refused(
    museum: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (zoo / "folds.csv").read_text().splitlines()
    moved = [line[:-1] + str((int(line[-1]) + 1) % 3) for line in lines[1:]]
    other = tmp_path / "folds.csv"
    other.write_text("\n".join([lines[0], *moved, ""]))
    assert run_fit(museum, write_recipe(tmp_path, "other"), zoo, "--folds", str(other)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {other}: differs from {zoo}/folds.csv; a zoo has one split: choose another --out"
    )
    assert (zoo / "folds.csv").read_text().splitlines() == lines


def test_another_labels_file_than_the_zoos_is_refused(
    museum: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(museum, tmp_path / "data"))
    with (data / "labels.csv").open("a") as file:
        file.write("7,tag::new\n")
    assert run_fit(data, write_recipe(tmp_path, "other"), zoo) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {zoo}/labels.csv: differs from {data}/labels.csv; a zoo has one labels.csv: choose another --out"
    )
