import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, fbeta_score, log_loss, root_mean_squared_error

from inference.basics.files import hash_file
from inference.manifest.decision import Decision, GroupDecision
from inference.manifest.file import write_manifest
from inference.manifest.records import Ensemble, LabelsEntry, Manifest
from inference.manifest.task import Form, Metric, Task
from training.__main__ import main

NAMES = ("Sugar beet", 'say "cheese"', "чай")
KAPPA = Task(
    type="multiclass",
    id_column="file",
    submission=Form(content="label_name", column="species", top_k=1),
    metric=Metric(name="kappa"),
)
LOSS = Task(
    type="multiclass",
    submission=Form(layout="wide", content="probability", sum_to_one=True),
    metric=Metric(name="log_loss"),
)
VALUE = Task(
    type="regression",
    id_column="Id",
    submission=Form(layout="wide", content="number"),
    metric=Metric(name="rmse"),
    value_range=(0.0, 100.0),
)
IDS = [f"image {row}.jpg" for row in range(20)]


def declare(folder: Path, task: Task, names: tuple[str, ...] = NAMES) -> Path:
    """Write labels.csv and a manifest without models; return the path of the manifest."""
    write(folder / "labels.csv", ("label_id", "label_name"), enumerate(names))
    groups = {"labels": ""}
    thresholds = task.selects_labels
    rule = "thresholds" if thresholds else "ranked" if task.submission.holds_labels else "probabilities"
    decision = Decision(
        {"labels": GroupDecision(0.5, 0, len(names))} if thresholds else {},
        {"labels": (0,)} if thresholds else {},
        rule="number" if task.type == "regression" else rule,
        prior_scores=() if thresholds else (0.5,) * len(names),
    )
    entry = LabelsEntry("labels.csv", hash_file(folder / "labels.csv"), groups)
    path = folder / "weights_manifest.json"
    write_manifest(Manifest(entry, (), Ensemble({"labels": {}}), decision, task), path)
    return path


def write(path: Path, header: tuple[str, ...], rows: object) -> Path:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def run(manifest: Path, submission: Path, truth: Path) -> int:
    """Run the command; return its exit code."""
    given = ["score", "--manifest", manifest, "--submission", submission, "--truth", truth]
    return main(list(map(str, given)))


def read_figure(capsys: pytest.CaptureFixture[str], title: str) -> float:
    """Return the printed figure."""
    line = capsys.readouterr().out
    assert line.startswith(f"{title} ")
    assert line.endswith(" on 20 images\n")
    return float(line.removeprefix(f"{title} ").split()[0])


def test_several_labels_are_scored_as_scikit_learn_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    answers, true = random.random((2, 20, 3)) < 0.5
    answers[:, 0] |= ~answers.any(axis=1)
    cells = [[" ".join(map(str, np.flatnonzero(row))) for row in matrix] for matrix in (answers, true)]
    given = write(tmp_path / "given.csv", ("id", "attribute_ids"), zip(IDS, cells[0], strict=True))
    # The truth in another order.
    truth = write(tmp_path / "truth.csv", ("id", "labels"), list(zip(IDS, cells[1], strict=True))[::-1])
    assert run(declare(tmp_path, Task()), given, truth) == 0
    expected = fbeta_score(true, answers, beta=2, average="samples", zero_division=0)
    assert read_figure(capsys, "F2") == pytest.approx(expected, abs=1e-9)


def test_one_class_of_odd_names_is_scored_as_scikit_learn_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, true = np.random.default_rng(1).integers(0, 3, (2, 20))
    submission = tmp_path / "given.csv"
    pd.DataFrame({"file": IDS, "species": [NAMES[place] for place in given]}).to_csv(submission, index=False)
    truth = write(tmp_path / "truth.csv", ("id", "labels"), zip(IDS, true, strict=True))
    assert run(declare(tmp_path, KAPPA), submission, truth) == 0
    expected = cohen_kappa_score(true, given, weights="quadratic")
    assert read_figure(capsys, "quadratic kappa") == pytest.approx(expected, abs=1e-9)


def test_probabilities_are_scored_as_scikit_learn_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(2)
    chances, true = random.dirichlet(np.ones(3), 20), random.integers(0, 3, 20)
    order = [2, 0, 1]  # the sample's columns need not be in the order of labels.csv
    submission = tmp_path / "given.csv"
    table = pd.DataFrame(chances[:, order], columns=[NAMES[place] for place in order])
    table.insert(0, "id", IDS)
    table.to_csv(submission, index=False)
    truth = write(tmp_path / "truth.csv", ("id", "labels"), zip(IDS, true, strict=True))
    assert run(declare(tmp_path, LOSS), submission, truth) == 0
    expected = log_loss(true, chances, labels=range(3))
    assert read_figure(capsys, "log loss") == pytest.approx(expected, abs=1e-9)


def test_numbers_are_scored_as_scikit_learn_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, true = np.random.default_rng(3).uniform(-10, 110, (2, 20)).round(2)
    submission = write(tmp_path / "given.csv", ("Id", "Pawpularity"), zip(IDS, given, strict=True))
    truth = write(tmp_path / "truth.csv", ("id", "value"), zip(IDS, true, strict=True))
    assert run(declare(tmp_path, VALUE, ("Pawpularity",)), submission, truth) == 0
    # The truth is kept in float32.
    assert read_figure(capsys, "RMSE") == pytest.approx(root_mean_squared_error(true, given), abs=1e-5)


@pytest.mark.parametrize(
    ("given", "true", "message"),
    [
        (("a", "b", "c"), ("a", "b"), "given.csv: found 1 images that {}/truth.csv lacks, as c; "),
        (("a",), ("a", "b", "c"), "truth.csv: found 2 images that {}/given.csv lacks, as b; "),
    ],
)
def test_other_images_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], true: tuple[str, ...], message: str
) -> None:
    submission = write(tmp_path / "given.csv", ("id", "attribute_ids"), ((image, "0") for image in given))
    truth = write(tmp_path / "truth.csv", ("id", "labels"), ((image, "0") for image in true))
    assert run(declare(tmp_path, Task()), submission, truth) == 1
    error = capsys.readouterr().err
    assert error == f"error: {tmp_path}/{message.format(tmp_path)}wanted the same images in both\n"


def test_an_invalid_submission_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submission = write(tmp_path / "given.csv", ("id", "attribute_ids"), [("a", "7")])
    truth = write(tmp_path / "truth.csv", ("id", "labels"), [("a", "0")])
    assert run(declare(tmp_path, Task()), submission, truth) == 1
    assert capsys.readouterr().err.startswith(f"error: {submission}: a: ")
