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
from inference.ensemble.decide import answer_prior, decide
from inference.ensemble.second_stage import choose_answers
from inference.ensemble.stackers import open_stage
from inference.manifest.bundle import read_declared
from inference.manifest.file import read_manifest, verify_files
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.manifest.task import Task
from tests.training.second_stage.drawn import NOISE, TASKS, draw_eyes, draw_images, name_labels, write_zoo
from training.scoring import bootstrap
from training.second_stage import fitted
from training.second_stage.findings import Findings
from training.second_stage.fit_ensemble import StageSettings, fit_second_stage
from training.second_stage.fitted import RANKS, LayerSettings, fit_layers, score_layers
from training.second_stage.member_scores import MemberScores, gather_scores
from training.second_stage.methods import mix_parts
from training.second_stage.outcome import final
from training.second_stage.stackers import trees
from training.second_stage.stackers.cnn import CnnSettings
from zoo.fitted_for import is_stale
from zoo.metrics.scoring import find_scoring
from zoo.tables.out_of_fold import open_zoo
from zoo.tables.train_table import read_table

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
    return (
        f"{zoo.manifest}: no image was held out by members of every group (culture, tag); train the members of "
        "different groups with the same folds\n"
    )


def leave_few(zoo: "Zoo") -> str:
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    culture = (zoo.folder / "culture.oof.ids.txt").read_text().split()
    shared = [image for image in culture if image in ids][:3]
    zoo.replace_scores("tag", np.load(zoo.folder / "tag.oof.npy")[:3], shared)
    return (
        f"{zoo.manifest}: found 3 images with out-of-fold scores for every group; wanted thousands, and at least 8 for "
        "2 outer folds\n"
    )


def share_an_image(zoo: "Zoo") -> str:
    document = json.loads(zoo.manifest.read_text())
    for model in document["models"]:
        if model["name"] == "tag":
            twin = {**model, "name": "tag_f1", "fold": 1, "member": "tag"}
            model |= {"name": "tag_f0", "fold": 0, "member": "tag"}
    document["models"].append(twin)
    document["ensemble"]["weights"]["tag"] = {"tag_f0": 1.0, "tag_f1": 1.0}
    zoo.manifest.write_text(json.dumps(document))
    ids = (zoo.folder / "tag.oof.ids.txt").read_text().split()
    return (
        f"models tag_f0 and tag_f1: both held out image {ids[0]}; the folds of one member must not share an image, "
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
    monkeypatch.setattr(final, "drop_small", lambda mix: {group: dict.fromkeys(mix[group], 1.0) for group in mix})
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


def thirds(images: int) -> dict[str, range]:
    """Return disjoint images for the three members."""
    return {name: range(place, images, 3) for place, name in enumerate(NOISE)}


@pytest.mark.parametrize("name", ["F1 of samples", "log loss", "RMSE", "ROC AUC", "kappa", "macro F1 of sets"])
def test_members_of_disjoint_folds_are_blended_equally(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TASKS[name]
    zoo = write_zoo(tmp_path, task, 300, held_out=thirds(300))
    found = fit_second_stage(StageSettings(zoo.manifest, zoo.train, folds=2))
    weights = found.weights["labels"]
    if task.metric.name != "roc_auc":  # the area depends on images of several members
        assert weights == pytest.approx(dict.fromkeys(NOISE, 1 / 3), abs=1e-3)
    assert [(one.name, one.images, one.share) for one in found.members] == [(one, 100, 1 / 3) for one in NOISE]
    assert found.images == 300
    assert "best single model" not in {one.name for one in found.methods}
    shown = capsys.readouterr().out
    assert "3 members, 300 images with scores for every group, each held out by 1 of the members" in shown
    assert "good    labels  blend     100    33%" in shown
    few = "no member of labels held out at least 50% of the images"
    assert set(found.left_out) == {"cnn_apart", "trees"}
    assert name == "RMSE" or found.left_out["trees"] == few
    manifest, labels = read_declared(tmp_path)
    (judged,) = [one for one in found.rules if one.name == found.rule]
    fresh, _ = score_fresh(manifest, labels, tmp_path)
    scoring = find_scoring(task)
    assert scoring.find_gain(fresh, judged.score) > -0.02, "the kernel has the scores of all members"
    assert set(found.values.values()) != {0.0}
    page = (tmp_path / "second_stage" / "second_stage.html").read_text()
    assert "<tr><th>good</th><td>100</td><td>33.3%</td>" in page


def test_a_member_of_few_images_is_blended_and_not_read_by_the_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 10)
    monkeypatch.setattr(final, "drop_small", lambda mix: {group: dict.fromkeys(mix[group], 1.0) for group in mix})
    task = TASKS["accuracy"]
    zoo = write_zoo(tmp_path, task, 300, held_out={"good": range(0, 120), "fair": range(60, 300)})
    found = fit_second_stage(StageSettings(zoo.manifest, zoo.train, folds=2, layers=LayerSettings(cnn=False)))
    manifest, labels = read_declared(tmp_path)
    (stacker,) = manifest.ensemble.stackers
    assert set(stacker.members) == {"fair", "noise"}
    assert manifest.ensemble.weights["labels"]["good"] > 0.1
    assert [one.use for one in found.members] == [
        "blend; not the stackers: fewer than 50% of the images",
        "blend and stackers",
        "blend and stackers",
    ]
    single = next(one for one in found.methods if one.name == "best single model")
    truth, scores = draw_images(task, 300, 0)
    alone = np.mean(scores["noise"].argmax(axis=1) == truth.argmax(axis=1))
    assert single.score == pytest.approx(alone), "the only one that held out every image"
    (judged,) = [one for one in found.rules if one.name == found.rule]
    assert score_fresh(manifest, labels, tmp_path)[0] > judged.score - 0.05
    assert "each held out by 2 to 3 of the members" in capsys.readouterr().out


def test_the_trees_read_features_in_the_kernel_as_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 30)
    monkeypatch.setitem(trees.SETTINGS, "min_data_in_leaf", 20)
    task = TASKS["F1 of samples"]
    zoo = write_zoo(tmp_path, task, 400, eyes=True)
    settings = LayerSettings(cnn=False)
    found = fit_second_stage(StageSettings(zoo.manifest, zoo.train, folds=2, layers=settings))
    manifest, labels = read_declared(tmp_path)
    (stacker,) = manifest.ensemble.stackers
    assert stacker.features == ("eyes",) and "eyes" not in stacker.members
    assert "eyes" not in manifest.ensemble.weights["labels"]
    assert manifest.ensemble.mix["labels"]["trees"] > 0
    assert set(manifest.ensemble.values["eyes"]) == {"identity", "hflip"}
    assert "features, read by the trees" in capsys.readouterr().out
    # The kernel's scores are those of the fit that was exported.
    opened = open_zoo(zoo.manifest)
    members = gather_scores(opened, read_table(zoo.train, labels, task))
    layers = fit_layers(members, labels, task, settings, "again")
    truth, scores = draw_images(task, 200, 9)
    scores["eyes"] = draw_eyes(truth, 9)
    fresh = MemberScores(
        members.names,
        members.covers,
        np.arange(200),
        np.stack([scores[name] for name in members.names], axis=1),
        truth,
        np.full((200, 4), np.nan, np.float32),
        {"eyes": scores["eyes"]},
    )
    parts = score_layers(layers, fresh, labels)
    home = decide(mix_parts(parts, manifest.ensemble.mix, labels), labels, manifest.decision)
    rows = choose_answers(open_stage(manifest, labels, tmp_path), scores, fresh.traits)
    answers = np.zeros_like(home)
    for row, given in enumerate(rows):
        answers[row, list(given)] = True
    assert (answers != home).any(axis=1).sum() <= 1, "the last bit of a score at a threshold may differ"
    without = {**scores, "eyes": np.full_like(scores["eyes"], np.nan)}
    assert choose_answers(open_stage(manifest, labels, tmp_path), without, fresh.traits) != rows
    (mix, plain) = (next(one for one in found.methods if one.name == name) for name in ("mix", "blend"))
    assert mix.score > plain.score
    (judged,) = [one for one in found.rules if one.name == found.rule]
    assert found.values["eyes"] == pytest.approx(judged.score - plain.score)


def test_the_scores_of_the_second_stage_are_declared_and_the_fit_is_not_stale(tmp_path: Path) -> None:
    task = TASKS["log loss"]
    zoo = write_zoo(tmp_path, task, 200, held_out={"noise": range(0, 150)})
    fit_second_stage(StageSettings(zoo.manifest, zoo.train, folds=2, layers=LayerSettings(cnn=False, trees=False)))
    manifest, _ = read_declared(tmp_path)
    assert manifest.ensemble.out_of_fold is not None and not is_stale(manifest)
    scores = np.load(tmp_path / manifest.ensemble.out_of_fold.scores.file)
    ids = (tmp_path / manifest.ensemble.out_of_fold.ids.file).read_text().splitlines()
    verify_files(
        [("scores", manifest.ensemble.out_of_fold.scores), ("ids", manifest.ensemble.out_of_fold.ids)], tmp_path
    )
    assert ids == [f"image {row}.jpg" for row in range(200)]
    assert (scores.shape, scores.dtype) == ((200, 5), task.score_dtype)
    truth, _ = draw_images(task, 200, 0)
    temperature = decide(scores.astype(np.float32), name_labels(task), manifest.decision)
    figures = json.loads((tmp_path / "second_stage" / "second_stage.json").read_text())
    (judged,) = [one for one in figures["rules"] if one["name"] == figures["rule"]]
    assert find_scoring(task).score(temperature, truth) == pytest.approx(judged["score"], abs=0.06)


def test_a_fit_replaces_an_outdated_second_stage(tmp_path: Path) -> None:
    task = TASKS["accuracy"]
    zoo = write_zoo(tmp_path, task, 120)
    settings = StageSettings(zoo.manifest, zoo.train, folds=2, layers=LayerSettings(cnn=False, trees=False))
    fit_second_stage(settings)
    document = json.loads(zoo.manifest.read_text())
    document["models"].append({**document["models"][0], "name": "added"})
    document["ensemble"]["weights"]["labels"]["added"] = 1.0
    document["ensemble"] |= {
        "blends": {"theirs": {"labels": {"good": 1.0}}},
        "mix": {"labels": {"blend": 0.5, "theirs": 0.5}},
    }
    zoo.manifest.write_text(json.dumps(document))
    assert is_stale(read_manifest(zoo.manifest))
    fit_second_stage(settings)
    fresh = read_manifest(zoo.manifest)
    assert not is_stale(fresh) and set(fresh.ensemble.values) == {*NOISE, "added"}
    assert (fresh.ensemble.blends, fresh.ensemble.mix) == ({}, {})


def test_models_that_look_like_folds_of_one_network_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = write_zoo(tmp_path, TASKS["accuracy"], 90, held_out=thirds(90))
    document = json.loads(zoo.manifest.read_text())
    for fold, model in enumerate(document["models"]):
        model["fold"] = fold
    zoo.manifest.write_text(json.dumps(document))
    layers = LayerSettings(cnn=False, trees=False)
    fit_second_stage(StageSettings(zoo.manifest, zoo.train, folds=2, layers=layers))
    note = (
        "note: good, fair, noise look like folds of one network, but each is a member of its own; declare the same "
        "`member` in their entries to join them\n"
    )
    assert note in capsys.readouterr().out
    document = json.loads(zoo.manifest.read_text())
    for model in document["models"]:
        model["member"] = "network"
    document["ensemble"] = {"weights": document["ensemble"]["weights"]}
    zoo.manifest.write_text(json.dumps(document))
    found = fit_second_stage(StageSettings(zoo.manifest, zoo.train, folds=2, layers=layers))
    assert found.weights == {"labels": {"network": 1.0}}
    assert "look like folds" not in capsys.readouterr().out
