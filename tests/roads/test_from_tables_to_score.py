"""Each invented competition from `init` to a scored submission: scikit-learn gives the score that we print."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    fbeta_score,
    log_loss,
    mean_squared_error,
    roc_auc_score,
)

import build_kernel
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.labels import Labels, read_labels
from inference.manifest.model import ALL, Model, OnnxEntry
from inference.manifest.task import Task
from inference.run.predict import run
from inference.run.state import Request
from tests.colour_bundle import SHARPNESS, write_model
from tests.packing.init.competitions import COMPETITIONS, write_competition
from training.__main__ import main as run_training

SERVED = sorted(name for name, one in COMPETITIONS.items() if "DICOM files" not in one.served)
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def add_network(zoo: Path) -> tuple[Task, Labels]:
    """Make the folder of `init` a bundle of one network."""
    manifest = read_manifest(zoo / MANIFEST_NAME)
    labels = read_labels(zoo / "labels.csv", manifest.labels.groups)
    weights = np.random.default_rng(1).normal(0, SHARPNESS, (3, len(labels.ids))).astype(np.float32)
    weights -= weights.mean(axis=0)  # so that grey gives 0, and images of random pixels differ in sign
    write_model(zoo / "net.onnx", weights, manifest.task.activation)
    entry = OnnxEntry("net.onnx", hash_file(zoo / "net.onnx"), 18, 0.0, "0" * 64)
    model = Model("net", "none", ALL, 8, (0.5,) * 3, (0.5,) * 3, "bilinear", views=("identity",), onnx={"fp32": entry})
    ensemble = dataclasses.replace(manifest.ensemble, weights={group: {"net": 1.0} for group in labels.groups})
    write_manifest(dataclasses.replace(manifest, models=(model,), ensemble=ensemble), zoo / MANIFEST_NAME)
    return manifest.task, labels


def draw_truth(task: Task, images: int, labels: int) -> Matrix:
    """Draw the truth of the test images, (images, labels); each label has images with it and without it."""
    random = np.random.default_rng(5)
    if task.type == "regression":
        low, high = task.value_range
        return random.uniform(low, high, (images, 1))
    if task.metric.name == "kl_divergence":
        return random.dirichlet([0.5] * labels, images)
    if task.type == "multiclass":
        return np.eye(labels)[(np.arange(images) + random.integers(3)) % labels]
    return ((np.arange(images)[:, None] + np.arange(labels)) % 3 > 0).astype(float)


def write_truth(path: Path, task: Task, labels: Labels, ids: list[str], truth: Matrix) -> None:
    """Write the truth in the normal form of train.csv."""
    if task.type == "regression":
        column, cells = "value", [repr(float(row[0])) for row in truth]
    elif task.metric.name == "kl_divergence":
        column, cells = "targets", [" ".join(repr(float(value)) for value in row) for row in truth]
    else:
        column = "labels"
        cells = [" ".join(str(labels.ids[place]) for place in np.flatnonzero(row)) for row in truth]
    pd.DataFrame({"id": ids, column: cells}).to_csv(path, index=False)


def read_by_pandas(path: Path, task: Task, labels: Labels) -> tuple[list[str], Matrix]:
    """Read the ids and the answers of a submission: 1 for a label, 1/rank in a ranked list, or the numbers."""
    form = task.submission
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if form.layout == "wide":
        return table[task.id_column].tolist(), table[list(labels.names)].astype(float).to_numpy()
    if form.layout == "long":
        parts = table[task.id_column].str.extract(f"^(.*?)_({'|'.join(labels.names)})$")
        wide = table.assign(image=parts[0], label=parts[1]).pivot(index="image", columns="label", values=form.column)
        ids = list(dict.fromkeys(parts[0]))
        return ids, wide.loc[ids, list(labels.names)].astype(float).to_numpy()
    written = labels.names if form.content == "label_name" else tuple(map(str, labels.ids))
    answers = np.zeros((len(table), len(labels.ids)))
    for row, cell in enumerate(table[form.column]):
        for place, word in enumerate([cell] if form.top_k == 1 else cell.split(form.separator)):
            answers[row, written.index(word)] = 1 / (1 + place) if form.top_k else 1
    return table[task.id_column].tolist(), answers


def score_by_scikit_learn(task: Task, truth: Matrix, answers: Matrix) -> float:
    """Score the answers by the task's metric, without any code of the project."""
    metric, classes, best = task.metric, truth.argmax(axis=1), answers.argmax(axis=1)
    columns = range(truth.shape[1])
    found = [int(answers[row, one] > 0) for row, one in enumerate(classes)]

    def rank_precision(row: int) -> float:
        place = [*np.argsort(-answers[row], kind="stable")[: metric.k]].index(classes[row]) if found[row] else 0
        return found[row] / (1 + place)

    scorers: dict[str, Callable[[], float]] = {
        "accuracy": lambda: accuracy_score(classes, best),
        "kappa": lambda: cohen_kappa_score(classes, best, weights="quadratic"),
        "map": lambda: float(np.mean([rank_precision(row) for row in range(len(truth))])),
        "roc_auc": lambda: float(np.mean([roc_auc_score(truth[:, one], answers[:, one]) for one in columns])),
        "kl_divergence": lambda: float(np.mean(np.sum(truth * np.log(truth / answers), axis=1))),
        "rmse": lambda: math.sqrt(mean_squared_error(truth, answers)),
        "log_loss": lambda: (
            log_loss(classes, answers, labels=list(columns))
            if task.type == "multiclass"
            else float(np.mean([log_loss(truth[:, one], answers[:, one]) for one in columns]))
        ),
    }
    if metric.name in scorers:
        return float(scorers[metric.name]())
    if task.type == "multiclass":
        return float(f1_score(classes, best, average=metric.average, zero_division=0))
    return float(fbeta_score(truth, answers, beta=metric.beta, average=metric.average, zero_division=0))


@pytest.mark.parametrize("name", SERVED)
def test_a_competition_goes_from_its_tables_to_a_scored_submission(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, zoo, out = tmp_path / name, tmp_path / "zoo", tmp_path / "out" / "submission.csv"
    options = write_competition(name, folder).options
    assert build_kernel.main(["init", str(folder), "--out", str(zoo), *options]) == 0, capsys.readouterr().err
    task, labels = add_network(zoo)
    assert task.competition == name
    run(Request(bundle=zoo, out=out, competition=folder))
    assert out.with_name("run_log.json").exists()

    ids, answers = read_by_pandas(out, task, labels)
    sample = pd.read_csv(folder / task.sample, dtype=str, keep_default_na=False)
    written = pd.read_csv(out, dtype=str, keep_default_na=False)
    assert list(written.columns) == list(sample.columns)
    assert written[task.id_column].tolist() == sample[task.id_column].tolist()
    if task.submission.sum_to_one:
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-8)
    assert len({tuple(row) for row in answers.tolist()}) > 1 or len(list(folder.rglob("test*/*"))) < 3

    truth = draw_truth(task, len(ids), len(labels.ids))
    write_truth(tmp_path / "truth.csv", task, labels, ids, truth)
    arguments = ["--manifest", str(zoo / MANIFEST_NAME), "--submission", str(out)]
    capsys.readouterr()
    assert run_training(["score", *arguments, "--truth", str(tmp_path / "truth.csv")]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    ours = next(float(word) for word in printed.split() if is_score(word))
    assert ours == pytest.approx(score_by_scikit_learn(task, truth, answers), abs=1e-9), printed


def is_score(word: str) -> bool:
    """Return whether a word is a number with a decimal point, as `score` prints the metric."""
    try:
        return math.isfinite(float(word)) and not word.isdigit()
    except ValueError:
        return False
