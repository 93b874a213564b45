"""Decisions and tasks that do not suit labels.csv."""

import dataclasses

import pytest

from inference.basics.errors import ManifestError
from inference.manifest.bundle import check_labels
from inference.manifest.decision import Decision, Fitted
from inference.manifest.labels import Labels
from inference.manifest.records import Ensemble, LabelsEntry, Manifest
from inference.manifest.task import Form, Metric, Task

LABELS = Labels((0, 1, 2), ("a", "b c", "d"), {"labels": (0, 1, 2)})
RANKED = Task(type="multiclass", submission=Form(top_k=1), metric=Metric("kappa"))
SCORES = (0.2, 0.3, 0.5)
BINARY = Task(type="binary", submission=Form("wide", "probability"), metric=Metric("roc_auc"))
NAMES = Task(submission=Form("list", "label_name"))


def make_manifest(task: Task, decision: Decision) -> Manifest:
    return Manifest(LabelsEntry("labels.csv", "0" * 64, {"labels": ""}), (), Ensemble({"labels": {}}), decision, task)


@pytest.mark.parametrize(
    ("task", "decision", "message"),
    [
        (Task(), Decision({}, {"labels": (1, 7)}), "`decision.prior.labels`: found 7; wanted label ids of this group in labels.csv"),
        (BINARY, Decision({}, {}, "probabilities", prior_scores=SCORES), "`task.type`: found binary, but 3 labels in labels.csv; wanted 1"),
        (RANKED, Decision({}, {}, "ranked"), "`decision.prior_scores`: found 0 numbers; wanted 3 for the 3 labels in labels.csv"),
        (RANKED, Decision({}, {}, "cut_points", fitted=Fitted(cuts=(0.5,)), prior_scores=SCORES), "`decision.fitted.cuts`: found 1 numbers; wanted 2 for the 3 labels in labels.csv"),
        (RANKED, Decision({}, {}, "ranked", fitted=Fitted(label_weights=(1.0,)), prior_scores=SCORES), "`decision.fitted.label_weights`: found 1 numbers; wanted 3 for the 3 labels in labels.csv"),
        (Task(), Decision({}, {}, fitted=Fitted(label_thresholds=(0.1, 0.2))), "`decision.fitted.label_thresholds`: found 2 numbers; wanted 3 for the 3 labels in labels.csv"),
        (NAMES, Decision({}, {}), "`task.submission.separator`: found ' ', which stands in the label 'b c' of labels.csv; wanted one that no label holds"),
    ],
)  # fmt: skip
def test_a_decision_that_does_not_fit_the_labels_is_refused(task: Task, decision: Decision, message: str) -> None:
    with pytest.raises(ManifestError) as error:
        check_labels(make_manifest(task, decision), LABELS)
    assert str(error.value) == f"weights_manifest.json: {message}"


def test_names_with_the_separator_may_stand_alone_or_with_another_separator() -> None:
    for form in (Form("list", "label_name", top_k=1), Form("list", "label_name", separator="|")):
        check_labels(
            make_manifest(dataclasses.replace(NAMES, submission=form), Decision({}, {}, prior_scores=SCORES)), LABELS
        )
