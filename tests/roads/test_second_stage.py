"""The second stage from out-of-fold predictions to a submission: fitted by a command, packed, run in the kernel."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import build_kernel
from inference.basics.files import hash_file
from inference.ensemble.decide import decide
from inference.ensemble.pairs import compute_features, find_pairs
from inference.images.read import read_image
from inference.images.traits import measure_traits
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.manifest.labels import read_labels
from packing.dry_run.run_script import rehearse
from tests.conftest import ZOO, Workshop, check_valid, write_picture, write_rows

IMAGES = 160


def run(*arguments: object) -> int:
    return build_kernel.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every test of this file."""


@pytest.fixture(scope="module")
def studio(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A zoo with out-of-fold predictions of 160 images, a second stage fitted to them, exported and packed.

    The bundle's script makes the predictions; the true labels are derived from them, so that they can be learned.
    """
    root = tmp_path_factory.mktemp("studio")
    home = Path(shutil.copytree(workshop.home, root / "home"))
    images = root / "competition" / "test"
    images.mkdir(parents=True)
    ids = [f"{index:012x}" for index in range(IMAGES)]
    for index, name in enumerate(ids):
        write_picture(images / f"{name}.png", (60 + index % 50, 100 - index % 40), 100 + index)
    write_rows(images.with_name("sample_submission.csv"), ("id", "attribute_ids"), [(name, "0") for name in ids])
    rehearse(workshop.dataset, images.parent, root / "first", predictions=True)
    scores = {name: np.load(root / "first" / "predictions" / f"{name}.npy").astype(np.float32) for name in ZOO}
    truth = draw_truth(scores)
    write_rows(
        root / "train.csv",
        ("id", "attribute_ids"),
        [(name, " ".join(map(str, np.flatnonzero(row)))) for name, row in zip(ids, truth, strict=True)],
    )
    document = json.loads((home / MANIFEST_NAME).read_text())
    for model in document["models"]:
        shutil.copyfile(root / "first" / "predictions" / f"{model['name']}.npy", home / f"{model['name']}.oof.npy")
        (home / f"{model['name']}.oof.ids.txt").write_text("".join(f"{name}\n" for name in ids))
        model["out_of_fold"] = {
            kind: {"file": f"{model['name']}.oof.{suffix}", "sha256": hash_file(home / f"{model['name']}.oof.{suffix}")}
            for kind, suffix in (("scores", "npy"), ("ids", "ids.txt"))
        }
    (home / MANIFEST_NAME).write_text(json.dumps(document))
    inputs = ["--manifest", home / MANIFEST_NAME, "--train", root / "train.csv", "--images", images]
    assert run("ensemble", *inputs, "--folds", 2) == 0
    assert run("pack", "--manifest", home / MANIFEST_NAME, "--onnx", workshop.onnx, "--out", root / "bundle") == 0
    return Workshop(home, workshop.onnx, root / "bundle", images.parent)


def draw_truth(scores: dict[str, np.ndarray]) -> np.ndarray:
    """Return true labels that follow the models' scores; the last label equals the first."""
    whole = scores["everything"].copy()
    whole[:, :2] += scores["culture"]
    whole[:, 2:] += scores["tag"]
    truth = whole > np.quantile(whole, 0.7, axis=0)
    truth[:, 4] = truth[:, 0]
    truth[~truth.any(axis=1), 2] = True
    return truth


def read_submission(path: Path) -> dict[str, list[int]]:
    with path.open() as file:
        return {row["id"]: [int(label) for label in row["attribute_ids"].split()] for row in csv.DictReader(file)}


def score_by_hand(studio: Workshop, scores: dict[str, np.ndarray], ids: list[str]) -> np.ndarray:
    """Compute the mix as the manifest defines it, one stacker at a time; no model has folds here."""
    manifest = read_manifest(studio.dataset / MANIFEST_NAME)
    labels = read_labels(studio.dataset / "labels.csv", manifest.labels.groups)
    whole = {name: np.full((len(ids), 5), np.nan, np.float32) for name in scores}
    for name, part in scores.items():
        whole[name][:, list(labels.columns(ZOO[name][1]))] = part
    parts = {"blend": np.zeros((len(ids), 5), np.float32)}
    for group, weights in manifest.ensemble.weights.items():
        for column in labels.columns(group):
            used = {name: weight for name, weight in weights.items() if weight}
            summed = sum(weight * whole[name][:, column] for name, weight in used.items())
            parts["blend"][:, column] = summed / sum(used.values())
    nothing = np.empty((len(ids), 0), np.float32)  # no outputs of members for features
    traits = np.stack([measure_traits(read_image(studio.images / f"{name}.png")) for name in ids])
    for stacker in manifest.ensemble.stackers:
        members = np.stack([whole[name] for name in stacker.members], axis=1)
        for row, column in np.argwhere(np.isnan(members).any(axis=1)):
            hole = np.isnan(members[row, :, column])
            members[row, hole, column] = members[row, ~hole, column].mean()
        columns = list(labels.columns(stacker.group))
        session = onnxruntime.InferenceSession(studio.dataset / stacker.onnx.file)
        parts[stacker.name] = parts["blend"].copy()
        if stacker.kind == "cnn":
            (parts[stacker.name][:, columns],) = session.run(None, {"scores": members[:, :, columns]})
        else:
            counts = np.array(json.loads(session.get_modelmeta().custom_metadata_map["counts"]))
            rows, places = find_pairs(members, stacker.top, counts)
            features = compute_features(members, rows, places, counts, np.array([0, 0, 1, 1, 1]), traits, nothing)
            (parts[stacker.name][rows, places],) = session.run(None, {"features": features})
    mixed = np.zeros((len(ids), 5), np.float32)
    for group, weights in manifest.ensemble.mix.items():
        for name, weight in weights.items():
            columns = list(labels.columns(group))
            mixed[:, columns] += weight / sum(weights.values()) * parts[name][:, columns]
    return mixed


def test_the_kernel_mixes_and_decides_as_the_manifest_says(studio: Workshop, tmp_path: Path) -> None:
    rehearse(studio.dataset, studio.competition, tmp_path, predictions=True)
    ids = (tmp_path / "predictions" / "ids.txt").read_text().split()
    scores = {name: np.load(tmp_path / "predictions" / f"{name}.npy").astype(np.float32) for name in ZOO}
    manifest = read_manifest(studio.dataset / MANIFEST_NAME)
    assert manifest.ensemble.stackers
    labels = read_labels(studio.dataset / "labels.csv", manifest.labels.groups)
    selected = decide(score_by_hand(studio, scores, ids), labels, manifest.decision)
    expected = {name: np.flatnonzero(row).tolist() for name, row in zip(ids, selected, strict=True)}
    found = read_submission(tmp_path / "submission.csv")
    # The last bit of a score at a threshold may differ.
    assert sum(found[name] != expected[name] for name in ids) <= 2


def test_the_fit_writes_figures_and_a_page(studio: Workshop) -> None:
    figures = json.loads((studio.home / "second_stage" / "second_stage.json").read_text())
    assert figures["metric"] == "F2"
    f2 = {one["name"]: one["score"] for one in figures["methods"]}
    assert set(f2) == {"best single model", "mean", "blend", "cnn_apart", "cnn_all", "cnn_both", "trees", "mix"}
    assert all(0 < value < 1 for value in f2.values())
    assert len(figures["rules"]) == 4
    page = (studio.home / "second_stage" / "second_stage.html").read_text()
    assert f"{f2['mix']:.4f}" in page


def test_each_model_and_view_has_a_value(studio: Workshop) -> None:
    manifest = read_manifest(studio.dataset / MANIFEST_NAME)
    assert {name: set(values) for name, values in manifest.ensemble.values.items()} == {
        name: {"identity", "hflip"} for name in ZOO
    }


def break_stacker(studio: Workshop, tmp_path: Path) -> tuple[Path, str]:
    """Copy the bundle with a first stacker that is no ONNX file but has the right hash; return folder and name."""
    dataset = Path(shutil.copytree(studio.dataset, tmp_path / "dataset"))
    document = json.loads((dataset / MANIFEST_NAME).read_text())
    stacker = document["ensemble"]["stackers"][0]
    (dataset / stacker["onnx"]["file"]).write_bytes(b"no graph")
    stacker["onnx"]["sha256"] = hash_file(dataset / stacker["onnx"]["file"])
    (dataset / MANIFEST_NAME).write_text(json.dumps(document))
    return dataset, stacker["name"]


def test_if_a_stacker_does_not_load_the_blend_decides_with_a_note(studio: Workshop, tmp_path: Path) -> None:
    dataset, name = break_stacker(studio, tmp_path)
    out = tmp_path / "submission.csv"
    command = [sys.executable, dataset / "inference.pyz", "--bundle", dataset, "--images", studio.images]
    done = subprocess.run(
        [*command, "--sample", studio.sample, "--out", out, "--predictions", tmp_path / "predictions"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert f"DEGRADED: stacker {name}: stacker_{name}.onnx does not load: " in done.stderr
    manifest = read_manifest(dataset / MANIFEST_NAME)
    labels = read_labels(dataset / "labels.csv", manifest.labels.groups)
    scores = {one: np.load(tmp_path / "predictions" / f"{one}.npy").astype(np.float32) for one in ZOO}
    blended = np.zeros((IMAGES, 5), np.float32)
    for group, weights in manifest.ensemble.weights.items():
        for column in labels.columns(group):
            place = {one: labels.columns(ZOO[one][1]).index(column) for one in weights}
            summed = sum(weight * scores[one][:, place[one]] for one, weight in weights.items())
            blended[:, column] = summed / sum(weights.values())
    selected = np.zeros(blended.shape, bool)
    for group, rule in manifest.decision.fallback.items():
        for column in labels.columns(group):
            rivals = blended[:, list(labels.columns(group))]
            rank = (rivals > blended[:, [column]]).sum(axis=1)
            first = (blended[:, column] >= rule.threshold) & (rank < rule.maximum)
            selected[:, column] = first | (rank < rule.minimum)
    found = read_submission(out)
    ids = (tmp_path / "predictions" / "ids.txt").read_text().split()
    decided = [row for row in range(IMAGES) if selected[row].any()]
    agreed = sum(found[ids[row]] == np.flatnonzero(selected[row]).tolist() for row in decided)
    assert agreed >= len(decided) - 2, "the thresholds of the blend decide"


def test_a_second_stage_is_outdated_by_an_added_model_and_then_only_the_blend_is_packed(
    studio: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, onnx = (Path(shutil.copytree(path, tmp_path / path.name)) for path in (studio.home, studio.onnx))
    fitted = read_manifest(home / MANIFEST_NAME).ensemble
    shutil.copyfile(home / "tag.safetensors", home / "more.safetensors")
    manifest = ["--manifest", home / MANIFEST_NAME]
    given = ["--architecture", ZOO["tag"][0], "--image-size", ZOO["tag"][2], "--group", "tag"]
    assert run("add", home / "more.safetensors", *manifest, *given) == 0
    assert read_manifest(home / MANIFEST_NAME).ensemble.stackers == fitted.stackers
    assert run("export", *manifest, "--images", studio.images, "--out", onnx) == 0
    capsys.readouterr()
    pack = ["pack", *manifest, "--onnx", onnx, "--out", tmp_path / "bundle"]
    assert run(*pack) == 1
    assert "the second stage was fitted for other models (added: more): run" in capsys.readouterr().err
    assert run(*pack, "--without-stackers") == 0
    rehearse(tmp_path / "bundle" / "dataset", studio.competition, tmp_path / "out")
    check_valid(tmp_path / "bundle" / "dataset", studio.sample, tmp_path / "out" / "submission.csv")


def test_check_refuses_a_stacker_that_does_not_load(
    studio: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, name = break_stacker(studio, tmp_path)
    assert run("check", dataset) == 1
    assert f"stacker_{name}.onnx" in capsys.readouterr().err
