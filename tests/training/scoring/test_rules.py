import numpy as np
import pytest

from inference.ensemble.decide import decide
from inference.manifest.labels import Labels
from inference.manifest.task import Form, Metric, Task
from inference.manifest.task_checks import check_task, list_decision_rules
from training.scoring.rules import (
    decide_crossed,
    fit_plainest,
    fit_richest,
    fit_rules,
    fit_thresholds_apart,
    list_rules,
)
from zoo.metrics.scoring import find_scoring

LABELS = Labels(tuple(range(6)), tuple("abcdef"), {"labels": tuple(range(6))})
ONE = Labels((0,), ("target",), {"labels": (0,)})
BEST, WIDE = Form(content="label_name", column="label", top_k=1), Form(layout="wide", content="probability")
SUMMED = Form(layout="wide", content="probability", sum_to_one=True)
NUMBER = Form(layout="wide", content="number")


def make_task(kind: str, form: Form, name: str, **metric: object) -> Task:
    """Return a task with a metric."""
    return Task(type=kind, submission=form, metric=Metric(name=name, **metric))


TASKS = {
    "f2": (Task(), ("one threshold", "a threshold per group", "thresholds and label counts")),
    "micro": (
        make_task("multilabel", Form(), "f_beta", beta=1.0, average="micro"),
        ("one threshold", "a threshold per group"),
    ),
    "macro": (
        make_task("multilabel", Form(), "f_beta", beta=1.0, average="macro"),
        ("one threshold", "a threshold per group", "a threshold per label"),
    ),
    "map": (make_task("multilabel", Form(top_k=3), "map", k=3), ("ranking",)),
    "roc_auc": (make_task("multilabel", WIDE, "roc_auc"), ("scores",)),
    "log_loss": (make_task("multilabel", WIDE, "log_loss"), ("scores", "temperature and clip")),
    "accuracy": (make_task("multiclass", BEST, "accuracy"), ("best label",)),
    "class_micro": (make_task("multiclass", BEST, "f_beta", beta=1.0, average="micro"), ("best label",)),
    "class_macro": (
        make_task("multiclass", BEST, "f_beta", beta=1.0, average="macro"),
        ("best label", "class weights"),
    ),
    "kappa": (make_task("multiclass", BEST, "kappa"), ("best label", "rounded expectation", "cut points")),
    "class_map": (make_task("multiclass", Form(top_k=5), "map", k=5), ("ranking",)),
    "top_5": (make_task("multiclass", Form(top_k=5), "accuracy"), ("best label",)),
    "class_log_loss": (make_task("multiclass", SUMMED, "log_loss"), ("scores", "temperature and clip")),
    "class_auc": (make_task("multiclass", WIDE, "roc_auc"), ("scores",)),
    "kl": (make_task("multiclass", SUMMED, "kl_divergence"), ("scores", "temperature and clip")),
    "binary": (make_task("binary", WIDE, "log_loss"), ("scores", "temperature and clip")),
    "rmse": (make_task("regression", NUMBER, "rmse"), ("scores", "linear")),
}


def draw_case(task: Task, seed: int, images: int = 300) -> tuple[np.ndarray, np.ndarray, Labels]:
    """Draw scores, truth and labels of a task; the scores are too certain and favour the frequent labels."""
    random = np.random.default_rng(seed)
    if task.type == "regression":
        truth = random.random((images, 1)).astype(np.float32)
        return (0.2 + 0.5 * truth + 0.1 * random.normal(size=truth.shape)).astype(np.float32), truth, ONE
    size = 1 if task.type == "binary" else 6
    logits = 1.5 * random.normal(size=(images, size)) - 0.7 * np.arange(size)
    if task.type == "multiclass":
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        chosen = (random.random((images, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=5)
        truth = np.eye(6, dtype=np.bool_)[chosen]
        scores = chances**2 / (chances**2).sum(axis=1, keepdims=True)
    else:
        chances = 1 / (1 + np.exp(-logits))
        truth = random.random(logits.shape) < chances
        scores = 1 / (1 + np.exp(-2 * logits))
    return scores.astype(np.float32), truth, ONE if size == 1 else LABELS


@pytest.mark.parametrize("name", TASKS)
def test_each_rule_answers_in_the_tasks_form_and_the_richest_loses_nothing_on_other_images(name: str) -> None:
    task, rules = TASKS[name]
    check_task(task, ["labels"])
    assert list_rules(task) == rules
    scores, truth, labels = draw_case(task, 0)
    fitted = fit_rules(task, scores, truth, labels)
    assert tuple(fitted) == rules
    assert {decision.rule for decision in fitted.values()} <= set(list_decision_rules(task))
    judged, true, _ = draw_case(task, 1, 2000)
    scoring = find_scoring(task)
    figures = [scoring.score(decide(judged, labels, decision), true) for decision in fitted.values()]
    assert scoring.find_gain(figures[-1], figures[0]) > -0.003
    if name in ("class_log_loss", "kl", "log_loss", "binary", "rmse"):
        assert scoring.find_gain(figures[-1], figures[0]) > 0.005
    assert fit_plainest(task, scores, truth, labels) == fitted[rules[0]]
    assert fit_richest(task, scores, truth, labels) == fitted[rules[-1]]
    if task.selects_labels:
        assert fit_thresholds_apart(task, scores, truth, labels) == fitted["a threshold per group"]


@pytest.mark.parametrize("name", ["f2", "macro", "class_macro", "kappa", "class_log_loss", "rmse"])
def test_each_half_is_decided_by_the_rule_of_the_other(name: str) -> None:
    task, rules = TASKS[name]
    scores, truth, labels = draw_case(task, 2, 61)
    crossed = decide_crossed(scores, truth, labels, task)
    for fitted, judged in ((0, 1), (1, 0)):
        decision = fit_rules(task, scores[fitted::2], truth[fitted::2], labels)[rules[-1]]
        np.testing.assert_array_equal(crossed[judged::2], decide(scores[judged::2], labels, decision))


def test_a_single_image_gets_no_label_or_the_plainest_answer() -> None:
    for name in ("f2", "accuracy", "rmse"):
        task = TASKS[name][0]
        scores, truth, labels = draw_case(task, 3, 1)
        expected = np.zeros_like(truth) if name == "f2" else scores
        np.testing.assert_array_equal(decide_crossed(scores, truth, labels, task), expected)


def test_soft_truth_is_read_as_the_best_class() -> None:
    task = TASKS["kappa"][0]
    scores, truth, labels = draw_case(task, 4)
    soft = (0.6 * truth + 0.4 / 6).astype(np.float32)
    assert fit_rules(task, scores, soft, labels) == fit_rules(task, scores, truth, labels)
