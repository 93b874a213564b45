import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import build_kernel
from inference.basics.errors import TrainingError
from inference.ensemble.blend import blend
from inference.ensemble.decide import answer_prior
from inference.ensemble.second_stage import choose_answers
from inference.ensemble.stackers import open_stage
from inference.manifest.bundle import read_declared
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.manifest.task import Task
from tests.training.second_stage.drawn import TASKS, draw_images, write_zoo
from training.scoring import bootstrap
from training.second_stage import fit_ensemble, fitted
from training.second_stage.findings import Findings
from training.second_stage.fit_ensemble import StageSettings, fit_second_stage
from training.second_stage.fitted import RANKS, LayerSettings
from training.second_stage.stackers import trees
from training.second_stage.stackers.cnn import CnnSettings
from zoo.metrics.scoring import find_scoring

if TYPE_CHECKING:
    from conftest import Zoo


def run_fit(zoo: "Zoo", *options: str) -> int:
    """Fit the blend, its thresholds and its values, without stackers."""
    given = ["ensemble", "--train", str(zoo.train), "--manifest", str(zoo.manifest), "--folds", "2"]
    return build_kernel.main([*given, "--without", "cnn", "--without", "trees", *options])


def read_truth(train: Path) -> dict[str, list[bool]]:
    rows = [line.split(",") for line in train.read_text().split("\n")[1:] if line]
    return {image: [str(label) in cell.split() for label in range(7)] for image, cell in rows}


def test_the_fit_keeps_the_prior_and_the_models(make_zoo: "Callable[[], Zoo]") -> None:
    zoo = make_zoo()
    before = json.loads(zoo.manifest.read_text())
    assert run_fit(zoo) == 0
    after = json.loads(zoo.manifest.read_text())
    assert after["decision"]["groups"] != before["decision"]["groups"]
    assert after["decision"]["prior"] == before["decision"]["prior"]
    assert after["models"][0]["out_of_fold"] == before["models"][0]["out_of_fold"]
    assert after["ensemble"]["weights"] == {"culture": {"culture": 1.0}, "tag": {"tag": 1.0}}
    assert after["ensemble"]["stackers"] == []


def drop_entry(zoo: "Zoo") -> str:
    document = json.loads(zoo.manifest.read_text())
    document["models"][1]["out_of_fold"] = None
    zoo.manifest.write_text(json.dumps(document))
    return "model tag: `models[1].out_of_fold`: missing; add the model with --oof, or take it out of the manifest"


def change_file(zoo: "Zoo") -> str:
    path = zoo.folder / "tag.oof.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    return "weights_manifest.json: `models[1].out_of_fold.scores.sha256`: "


def put_nan(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    scores = np.load(zoo.folder / "tag.oof.npy")
    scores[3, 1] = np.nan
    zoo.replace_scores("tag", scores, ids)
    return f"model tag: {zoo.folder}/tag.oof.npy: image {ids[3]}: found NaN; wanted 0 to 1\n"


def put_logits(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.full((40, 4), -2.5, np.float16), ids)
    return f"model tag: {zoo.folder}/tag.oof.npy: image {ids[0]}: found -2.5 to -2.5; wanted 0 to 1\n"


def drop_id(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy"), ids[1:])
    return (
        f"model tag: {zoo.folder}/tag.oof.npy: found float16 (40, 4); wanted float16 (39, 4): "
        "the images of tag.oof.ids.txt, the labels of 'tag'\n"
    )


def double_id(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy"), [ids[0], ids[0], *ids[2:]])
    return f"model tag: {zoo.folder}/tag.oof.ids.txt: found image {ids[0]} twice; wanted unique ids\n"


def rename_image(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy"), ["elsewhere", *ids[1:]])
    return f"model tag: {zoo.folder}/tag.oof.npy: image elsewhere is missing in train.csv; check --train\n"


def part_folds(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    apart = sorted(set(read_truth(zoo.train)) - set((zoo.folder / "culture.oof.ids.txt").read_text().split()))
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy")[: len(apart)], apart)
    assert len(ids) > len(apart) > 0
    return f"{zoo.manifest}: no image was held out by all members (culture, tag); train all with the same folds\n"


def leave_few(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    culture = (zoo.folder / "culture.oof.ids.txt").read_text().split()
    shared = [image for image in culture if image in ids][:3]
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy")[:3], shared)
    return (
        f"{zoo.manifest}: found 3 images held out by all members; wanted thousands, and at least 8 for 2 outer folds\n"
    )


def share_an_image(zoo: "Zoo") -> str:
    document = json.loads(zoo.manifest.read_text())
    for model in document["models"]:
        if model["name"] == "tag":
            twin = {**model, "name": "tag_f1", "fold": 1}
            model |= {"name": "tag_f0", "fold": 0}
    document["models"].append(twin)
    document["ensemble"]["weights"]["tag"] = {"tag_f0": 1.0, "tag_f1": 1.0}
    zoo.manifest.write_text(json.dumps(document))
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    return (
        f"models tag_f0 and tag_f1: both held out image {ids[0]}; the folds of one recipe must not share an image, "
        "because one of them was trained on it\n"
    )


@pytest.mark.parametrize(
    "spoil",
    [
        drop_entry,
        change_file,
        put_nan,
        put_logits,
        drop_id,
        double_id,
        rename_image,
        part_folds,
        leave_few,
        share_an_image,
    ],
)
def test_the_message_about_unusable_predictions_names_the_model_and_file(
    spoil: "Callable[[Zoo], str]", make_zoo: "Callable[[], Zoo]", capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    message = spoil(zoo)
    before = zoo.manifest.read_bytes()
    assert run_fit(zoo) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {message}")
    assert shown.count("\n") == 1
    assert zoo.manifest.read_bytes() == before


def test_a_missing_manifest_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights_manifest.json"
    assert build_kernel.main(["ensemble", "--train", "train.csv", "--manifest", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {path}: no such file; name the manifest, or start one with `build_kernel.py init`\n"
    )


def fit_drawn(folder: Path, task: Task, layers: LayerSettings) -> tuple[Findings, Manifest, Labels]:
    """Fit a drawn zoo of 300 images; return what the command found and declared."""
    zoo = write_zoo(folder, task, 300)
    found = fit_second_stage(StageSettings(zoo.manifest, zoo.train, folds=2, layers=layers))
    return found, *read_declared(folder)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For metrics that are no mean over images."""
    monkeypatch.setattr(bootstrap, "FEWEST", 9)
    monkeypatch.setattr(bootstrap, "MOST", 39)


def score_fresh(manifest: Manifest, labels: Labels, folder: Path) -> tuple[float, np.ndarray]:
    """Score the kernel's answers to 2000 other images, from the rows that it writes."""
    task = manifest.task
    truth, scores = draw_images(task, 2000, seed=9)
    stage = open_stage(manifest, labels, folder)
    rows = choose_answers(stage, scores, np.full((2000, 4), np.nan, np.float32))
    low, high = task.value_range
    if not task.submission.holds_labels:
        answers = np.array(rows)
        return find_scoring(task).score((answers - low) / (high - low), truth), answers
    answers = np.full(truth.shape, -np.inf) if task.submission.top_k else np.zeros(truth.shape, np.bool_)
    for row, given in enumerate(rows):
        answers[row, list(given)] = -np.arange(len(given)) if task.submission.top_k else True
    return find_scoring(task).score(answers, truth), answers


@pytest.mark.parametrize("name", TASKS)
def test_the_declared_decision_scores_on_other_images_as_it_was_judged(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TASKS[name]
    found, manifest, labels = fit_drawn(tmp_path, task, LayerSettings(cnn=False, trees=False))
    (judged,) = [one for one in found.rules if one.name == found.rule]
    fresh, answers = score_fresh(manifest, labels, tmp_path)
    assert fresh == pytest.approx(judged.score, abs=1.0 if name == "RMSE" else 0.07)
    if task.submission.sum_to_one:
        assert answers.sum(axis=1) == pytest.approx(np.ones(len(answers)))
    weights = manifest.ensemble.weights["labels"]
    assert weights["noise"] < weights["good"]
    prior = answer_prior(manifest, labels)
    assert len(prior) == (task.submission.top_k or len(prior)) and np.isfinite(prior).all()
    shown = capsys.readouterr().out
    assert find_scoring(task).title in shown
    assert (name, "F2" in shown) in ((name, False), ("micro F2", True))
    page = (tmp_path / "second_stage" / "second_stage.html").read_text()
    assert ("threshold-table" in page) == task.selects_labels
    assert ("confused-table" in page) == (task.type == "multiclass")
    assert ("error-table" in page) == (task.type == "regression")


@pytest.mark.parametrize("name", ["accuracy", "log loss of one", "KL divergence"])
def test_the_kernel_runs_the_stackers_of_other_tasks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fitted, "CnnSettings", partial(CnnSettings, rank=8, epochs=1, updates=30, learning_rate=1e-2))
    monkeypatch.setattr(trees, "ROUNDS", 10)
    monkeypatch.setattr(
        fit_ensemble, "drop_small", lambda mix: {group: dict.fromkeys(mix[group], 1.0) for group in mix}
    )
    kinds = {"cnn"} if name == "log loss of one" else {"trees"}
    found, manifest, labels = fit_drawn(tmp_path, TASKS[name], LayerSettings(cnn="cnn" in kinds))
    (judged,) = [one for one in found.rules if one.name == found.rule]
    assert {stacker.kind for stacker in manifest.ensemble.stackers} == kinds
    assert score_fresh(manifest, labels, tmp_path)[0] == pytest.approx(judged.score, abs=0.1)
    assert set(found.left_out) == ({"cnn_all", "trees"} if "cnn" in kinds else set())
    shown = capsys.readouterr().out
    assert all(f"{part} is left out: {reason}" in shown for part, reason in found.left_out.items())
    spare = manifest.decision.fallback_fitted
    assert (spare is None) == (name == "accuracy"), "the blend's own temperature"


def test_ranks_are_declared_where_they_order_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASKS["ROC AUC"]

    def draw(task: Task, images: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        truth, scores = draw_images(task, images, seed)
        # Two equally good members, of which one is much surer of itself.
        return truth, {**scores, "fair": scores["fair"] ** 0.1, "good": scores["good"] ** 12}

    monkeypatch.setattr("tests.training.second_stage.drawn.draw_images", draw)
    found, manifest, labels = fit_drawn(tmp_path, task, LayerSettings(cnn=False, trees=False))
    assert found.method == RANKS
    assert set(manifest.ensemble.ranks) == set(manifest.ensemble.weights["labels"])
    truth, scores = draw(task, 2000, seed=9)
    blended = blend(scores, manifest, labels)
    assert find_scoring(task).score(blended, truth) == pytest.approx(found.rules[0].score, abs=0.03)
    assert manifest.decision.prior_scores == pytest.approx(blended.mean(axis=0), abs=0.05), "in the units of ranks"


def test_more_scores_than_memory_are_an_error_before_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = write_zoo(tmp_path, TASKS["accuracy"], 40)
    monkeypatch.setattr("training.second_stage.member_scores.measure_available", lambda: 1e3)
    with pytest.raises(TrainingError) as caught:
        fit_second_stage(StageSettings(zoo.manifest, zoo.train))
    assert str(caught.value) == (
        f"{zoo.manifest}: the scores of 40 images x 3 members x 5 labels need about 0.0 GB of memory; found 0.0 GB; "
        "take models out of the manifest, or use a machine with more memory"
    )
