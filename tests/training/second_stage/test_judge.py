"""The nested figures of each task's metric, computed again from what each outer fold fitted."""

from functools import cache

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    fbeta_score,
    log_loss,
    roc_auc_score,
    root_mean_squared_error,
)

from inference.ensemble.decide import decide
from inference.manifest.records import BLEND
from tests.training.second_stage.drawn import TASKS, draw_members, name_labels
from training.scoring import bootstrap
from training.second_stage.findings import judge_all, judge_rules
from training.second_stage.fitted import RANKS, Layers, LayerSettings
from training.second_stage.judge import Nested, judge_methods, list_all_rules
from training.second_stage.member_scores import MemberScores
from training.second_stage.member_values import measure_members
from training.second_stage.methods import MEAN

IMAGES, FOLDS = 240, 2


def mean_precision(answers: np.ndarray, truth: np.ndarray) -> float:
    ranks = (answers > answers[truth][:, None]).sum(axis=1)
    return float(np.where(ranks < 3, 1 / (1 + ranks), 0).mean())


METRICS = {
    "F1 of samples": lambda given, true: fbeta_score(true, given, beta=1, average="samples", zero_division=0),
    "micro F2": lambda given, true: fbeta_score(true, given, beta=2, average="micro"),
    "macro F1 of sets": lambda given, true: f1_score(true, given, average="macro", zero_division=0),
    "accuracy": lambda given, true: accuracy_score(true.argmax(axis=1), given.argmax(axis=1)),
    "macro F1": lambda given, true: f1_score(true.argmax(axis=1), given.argmax(axis=1), average="macro"),
    "kappa": lambda given, true: cohen_kappa_score(true.argmax(axis=1), given.argmax(axis=1), weights="quadratic"),
    "MAP": mean_precision,
    "ROC AUC": lambda given, true: roc_auc_score(true, given, average="macro"),
    "ROC AUC of one": lambda given, true: roc_auc_score(true[:, 0], given[:, 0]),
    "log loss": lambda given, true: log_loss(true.argmax(axis=1), given),
    "log loss of one": lambda given, true: log_loss(true[:, 0], given[:, 0]),
    "KL divergence": lambda given, true: (true * np.log(true / given)).sum(axis=1).mean(),
    "RMSE": lambda given, true: root_mean_squared_error(100 * true.astype(float), 100 * given),
}


@cache
def judge(name: str) -> tuple[MemberScores, Nested]:
    task = TASKS[name]
    members = draw_members(task, IMAGES)
    settings = LayerSettings(cnn=False, trees=False, ranks=task.metric.name == "roc_auc")
    return members, judge_methods(members, name_labels(task), task, settings, FOLDS, lambda _: None)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For metrics that are no mean over images."""
    monkeypatch.setattr(bootstrap, "FEWEST", 9)
    monkeypatch.setattr(bootstrap, "MOST", 39)


def blend_by_hand(layers: Layers, members: MemberScores, rows: np.ndarray) -> np.ndarray:
    return sum(
        np.float32(weight) * members.scores[rows, members.names.index(name)].astype(np.float32)
        for name, weight in layers.weights["labels"].items()
    )


@pytest.mark.parametrize("name", TASKS)
def test_the_nested_figure_is_the_metric_of_the_answers_of_all_folds(name: str) -> None:
    task, labels = TASKS[name], name_labels(TASKS[name])
    members, nested = judge(name)
    for judged in judge_rules(nested, BLEND, task):
        answers: np.ndarray | None = None
        for outer in nested.outer:
            part = decide(blend_by_hand(outer.layers, members, outer.held_out), labels, outer.rules[judged.name])
            answers = np.zeros(members.truth.shape, part.dtype) if answers is None else answers
            answers[outer.held_out] = part
        assert judged.score == pytest.approx(METRICS[name](answers, members.truth), abs=1e-4), judged.name
    assert [judged.name for judged in judge_rules(nested, BLEND, task)] == list(list_all_rules(task))


@pytest.mark.parametrize("name", TASKS)
def test_the_weights_beat_the_mean_of_members_of_which_one_is_noise(name: str) -> None:
    members, nested = judge(name)
    figures = {judged.name: judged for judged in judge_all(nested, TASKS[name])}
    assert (figures[BLEND].gain, figures[BLEND].low, figures[BLEND].high) == (0, 0, 0)
    assert figures[MEAN].gain < 0, "the mean is worse"
    assert figures[MEAN].low <= figures[MEAN].gain <= figures[MEAN].high
    values = measure_members(
        members, name_labels(TASKS[name]), TASKS[name], nested, BLEND, list_all_rules(TASKS[name])[0]
    )
    assert max(values.values()) == values["good"] > 0
    assert values["good"] > values["noise"]


def test_only_an_order_is_judged_by_ranks() -> None:
    assert RANKS in {method for method, _ in judge("ROC AUC")[1].pools}
    assert RANKS not in {method for method, _ in judge("log loss of one")[1].pools}


def test_any_beta_names_its_rule_of_expected_f() -> None:
    assert list_all_rules(TASKS["F1 of samples"])[-1] == "expected F1"
    assert list_all_rules(TASKS["micro F2"]) == ("one threshold", "a threshold per group")
