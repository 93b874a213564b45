"""The decision of a new manifest, before one is fitted."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.basics.errors import ManifestError
from inference.ensemble.decide import answer_prior, decide
from inference.manifest.bundle import check_labels
from inference.manifest.decision import Decision
from inference.manifest.file import read_manifest, write_manifest
from inference.manifest.labels import Labels
from inference.manifest.model import FileEntry, Model
from inference.manifest.records import Ensemble, Manifest, Stacker
from inference.manifest.task import Form, Metric, Task
from zoo.edit import append_model, choose_decision, create_manifest, declare_out_of_fold
from zoo.tables.train_table import Table

LABELS = Labels((0, 1, 2), ("a", "b", "c"), {"labels": (0, 1, 2)})
ONE = Labels((0,), ("y",), {"labels": (0,)})
CLASSES = np.eye(3, dtype=np.bool_)[[0, 2, 2, 2, 1, 2, 0, 2]]
TARGETS = np.random.default_rng(0).random((40, 3)) < (0.7, 0.5, 0.1)


def make_task(kind: str, form: Form, metric: Metric, **more: object) -> Task:
    return Task(type=kind, submission=form, metric=metric, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "labels", "targets", "prior"),
    [
        (make_task("multiclass", Form(top_k=1), Metric("accuracy")), LABELS, CLASSES, (2,)),
        (make_task("multiclass", Form(top_k=2), Metric("map", k=2)), LABELS, CLASSES, (2, 0)),
        (make_task("multiclass", Form("wide", "probability", sum_to_one=True), Metric("log_loss")), LABELS, CLASSES, (0.25, 0.125, 0.625)),
        (make_task("multilabel", Form("wide", "probability"), Metric("roc_auc")), LABELS, TARGETS, tuple(TARGETS.mean(axis=0))),
        (make_task("binary", Form("wide", "probability"), Metric("log_loss")), ONE, CLASSES[:, :1], (0.25,)),
        (make_task("regression", Form("wide", "number"), Metric("rmse"), value_range=(10.0, 20.0)), ONE,
         np.array([[0.5], [1.0]], np.float32), (17.5,)),
    ],
)  # fmt: skip
def test_the_prior_answer_is_the_frequent_label_the_frequencies_or_the_mean(
    task: Task, labels: Labels, targets: np.ndarray, prior: tuple[float, ...], tmp_path: Path
) -> None:
    decision = choose_decision(task, labels, Table(tuple(map(str, range(len(targets)))), targets))
    (tmp_path / "labels.csv").write_text(
        "label_id,label_name\n" + "".join(f"{i},{n}\n" for i, n in zip(labels.ids, labels.names, strict=True))
    )
    (tmp_path / "train.csv").write_text("id,value\nx,12\n" if task.type == "regression" else "id,labels\nx,0\n")
    manifest = create_manifest(tmp_path / "m.json", tmp_path / "labels.csv", tmp_path / "train.csv", task)
    manifest = dataclasses.replace(manifest, decision=decision)
    write_manifest(manifest, tmp_path / "m.json")
    assert read_manifest(tmp_path / "m.json") == manifest
    check_labels(manifest, labels)
    assert manifest.labels.groups == {"labels": ""}
    assert list(answer_prior(manifest, labels)) == pytest.approx(list(prior))


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.5])
def test_the_prior_of_labels_is_the_best_constant_answer_for_each_beta(beta: float) -> None:
    task = Task(metric=Metric(beta=beta))
    decision = choose_decision(task, LABELS, Table(tuple(map(str, range(40))), TARGETS))
    found = set(decision.prior["labels"])
    scores = {}
    for size in (1, 2, 3):  # the labels are in the order of their frequency
        answer = np.tile(np.arange(3) < size, (40, 1))
        scores[size] = fbeta_score(TARGETS, answer, beta=beta, average="samples", zero_division=0)
    assert found == set(range(max(scores, key=lambda size: scores[size])))
    (rule,) = decision.groups.values()
    assert (rule.threshold, rule.maximum) == ({2.0: 0.2, 1.0: 0.5, 0.5: 0.8}[beta], TARGETS.sum(axis=1).max())


def test_probabilities_of_a_new_manifest_are_kept_from_0_and_1_where_log_loss_would_punish_them() -> None:
    scores = np.array([[0.0, 0.0, 1.0]], np.float32)
    table = Table(tuple("abcdefgh"), CLASSES)
    form = Form("wide", "probability", sum_to_one=True)
    for metric, lowest in (("log_loss", 9e-7), ("kl_divergence", 9e-7), ("roc_auc", 0)):
        decision: Decision = choose_decision(make_task("multiclass", form, Metric(metric)), LABELS, table)  # type: ignore[arg-type]
        found = decide(scores, LABELS, decision)
        assert found.sum() == pytest.approx(1) and found[0, 0] >= lowest


def make_model(name: str, group: str = "labels", **more: object) -> Model:
    return Model(name, "resnet18", group, 32, (0.5,) * 3, (0.5,) * 3, "bilinear", **more)  # type: ignore[arg-type]


@pytest.fixture
def fitted(tmp_path: Path) -> Manifest:
    """A manifest with two models and a second stage."""
    (tmp_path / "labels.csv").write_text("label_id,label_name\n0,a\n1,b\n2,c\n")
    (tmp_path / "train.csv").write_text("id,labels\nx,0\n")
    manifest = create_manifest(tmp_path / "m.json", tmp_path / "labels.csv", tmp_path / "train.csv", Task())
    entry = FileEntry("trees.onnx", "0" * 64)
    ensemble = Ensemble(
        {"labels": {"one": 0.5, "two": 0.2, "off": 0.0}},
        (Stacker("trees", "trees", "labels", ("one", "two"), entry, 0.0, top=5),),
        {"labels": {"blend": 1.0, "trees": 2.0}},
        values={"one": {"identity": 0.01}},
        fitted_for="1" * 64,
    )
    models = tuple(map(make_model, ("one", "two", "off")))
    return dataclasses.replace(manifest, models=models, ensemble=ensemble)


def test_an_added_model_leaves_the_second_stage_as_it_is(fitted: Manifest, tmp_path: Path) -> None:
    append_model(fitted, make_model("new"), tmp_path / "m.json")
    grown = read_manifest(tmp_path / "m.json")
    weights = {"labels": {"one": 0.5, "two": 0.2, "off": 0.0, "new": 0.35}}
    assert grown.ensemble == dataclasses.replace(fitted.ensemble, weights=weights)
    assert grown.decision == fitted.decision
    assert [model.name for model in grown.models] == ["one", "two", "off", "new"]


def test_features_get_no_weight_and_a_first_model_gets_1(fitted: Manifest, tmp_path: Path) -> None:
    append_model(fitted, make_model("seen", "features", outputs=7), tmp_path / "m.json")
    assert read_manifest(tmp_path / "m.json").ensemble == fitted.ensemble
    empty = dataclasses.replace(fitted, models=(), ensemble=Ensemble({"labels": {}}))
    append_model(empty, make_model("first"), tmp_path / "m.json")
    assert read_manifest(tmp_path / "m.json").ensemble.weights == {"labels": {"first": 1.0}}


def test_a_cut_off_array_is_refused(tmp_path: Path) -> None:
    scores = tmp_path / "x.oof.npy"
    scores.touch()
    scores.with_suffix(".ids.txt").write_text("a\n")
    with pytest.raises(ManifestError, match=rf"^{scores}: not an array: "):
        declare_out_of_fold(scores, tmp_path, 3, Task())
