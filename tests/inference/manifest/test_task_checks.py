"""Keys of a task that do not suit one another."""

import dataclasses
import re

import pytest

from inference.basics.errors import ManifestError
from inference.manifest.task import Form, Images, Metric, Task
from inference.manifest.task_checks import check_task, list_decision_rules, list_metrics

ONE = Form("list", "label_id", "label", top_k=1)
WIDE = Form("wide", "probability")
CLASSES = Task(type="multiclass", submission=ONE, metric=Metric("accuracy"))
GROUPS = {"labels": ""}


@pytest.mark.parametrize(
    "task",
    [
        Task(),
        Task(metric=Metric(beta=1, average="micro")),
        CLASSES,
        dataclasses.replace(CLASSES, metric=Metric("kappa")),
        dataclasses.replace(CLASSES, metric=Metric(beta=1, average="macro")),
        Task(type="multiclass", submission=dataclasses.replace(ONE, top_k=5), metric=Metric("map", k=5)),
        Task(type="multiclass", submission=dataclasses.replace(ONE, top_k=5), metric=Metric("accuracy")),
        Task(type="multiclass", submission=dataclasses.replace(WIDE, sum_to_one=True), metric=Metric("kl_divergence")),
        Task(submission=WIDE, metric=Metric("roc_auc")),
        Task(submission=Form("long", "probability", "p"), metric=Metric("log_loss")),
        Task(type="binary", submission=WIDE, metric=Metric("log_loss")),
        Task(type="regression", submission=Form("wide", "number"), metric=Metric("rmse")),
        Task(images=Images("test/{chain}/{id}", "test.csv")),
    ],
)
def test_tasks_of_competitions_are_accepted(task: Task) -> None:
    check_task(task, GROUPS)
    assert task.metric.name in list_metrics(task)
    assert len(list_decision_rules(task)) > 0


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task(type="multiclass"), "`task.submission.top_k`: found null; wanted the number of labels per image, 1 for the best alone"),
        (Task(type="binary"), "`task.submission.content`: found \"label_id\"; wanted 'probability' for binary"),
        (Task(type="regression", submission=WIDE), "`task.submission.content`: found \"probability\"; wanted 'number' for regression"),
        (Task(submission=Form("wide", "number")), "`task.submission.content`: found \"number\"; wanted 'label_id' or 'label_name' or 'probability' for multilabel"),
        (Task(submission=Form("wide", "label_id")), "`task.submission.layout`: found \"wide\"; wanted 'list' for labels"),
        (Task(submission=Form("list", "probability")), "`task.submission.layout`: found \"list\"; wanted 'wide' or 'long' for numbers"),
        (Task(submission=dataclasses.replace(WIDE, top_k=3), metric=Metric("roc_auc")), "`task.submission.top_k`: found 3; wanted null, as only a `list` is ranked"),
        (Task(submission=dataclasses.replace(WIDE, sum_to_one=True), metric=Metric("roc_auc")), "`task.submission.sum_to_one`: found true; wanted false: only the columns of `multiclass` add up to 1"),
        (Task(metric=Metric("accuracy")), "`task.metric.name`: found \"accuracy\"; wanted 'f_beta' for multilabel answers in the layout list with label_id"),
        (dataclasses.replace(CLASSES, metric=Metric("rmse")), "`task.metric.name`: found \"rmse\"; wanted 'accuracy' or 'f_beta' or 'kappa' or 'map' for multiclass answers in the layout list of 1 with label_id"),
        (Task(submission=WIDE), "`task.metric.name`: found \"f_beta\"; wanted 'roc_auc' or 'log_loss' for multilabel answers in the layout wide with probability"),
        (dataclasses.replace(CLASSES, metric=Metric()), "`task.metric.average`: found \"samples\"; wanted 'micro' or 'macro' where an image has one label"),
        (dataclasses.replace(CLASSES, metric=Metric("map")), "`task.metric.k`: found 5; wanted `task.submission.top_k`, 1"),
        (Task(images=Images("test/{chain}/{id}")), "`task.images.path`: found {chain}; wanted {id}, or a table with it in `task.images.table`"),
    ],
)  # fmt: skip
def test_keys_that_do_not_suit_one_another_are_named(task: Task, message: str) -> None:
    with pytest.raises(ManifestError) as error:
        check_task(task, GROUPS)
    assert str(error.value) == message


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_only_multilabel_has_several_groups(kind: str) -> None:
    wanted = f'`labels.groups`: found ["culture", "tag"]; wanted one group, as `task.type` is {kind}'
    with pytest.raises(ManifestError, match=f"^{re.escape(wanted)}$"):
        check_task(Task(type=kind), {"culture": "", "tag": ""})  # type: ignore[arg-type]
