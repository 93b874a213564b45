import dataclasses

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

from inference.manifest.task import Form, Metric, Task
from zoo.metrics.scoring import find_scoring, harden_truth, select_answers

BEST = Form(content="label_name", column="label", top_k=1)
WIDE = Form(layout="wide", content="probability")
NUMBER = Form(layout="wide", content="number")


def make_task(kind: str, form: Form, **metric: object) -> Task:
    """Return a task with a metric."""
    return Task(type=kind, submission=form, metric=Metric(**metric))


def test_the_default_is_mean_f2() -> None:
    random = np.random.default_rng(0)
    answers, truth = random.random((2, 30, 5)) < 0.3
    scoring = find_scoring(Task())
    assert (scoring.title, scoring.key, scoring.higher_is_better, scoring.is_mean) == ("F2", "f2", True, True)
    expected = fbeta_score(truth, answers, beta=2, average="samples", zero_division=0)
    assert scoring.score(answers, truth) == pytest.approx(expected, abs=1e-12)


CASES = [
    (make_task("multilabel", Form(), name="f_beta", beta=1.0), "F1", "f1", True, True),
    (
        make_task("multilabel", Form(), name="f_beta", beta=0.5, average="micro"),
        "micro F0.5",
        "micro_f0.5",
        True,
        False,
    ),
    (make_task("multilabel", Form(), name="f_beta", beta=1.0, average="macro"), "macro F1", "macro_f1", True, False),
    (make_task("multiclass", BEST, name="f_beta", beta=1.0, average="macro"), "macro F1", "macro_f1", True, False),
    (make_task("multiclass", BEST, name="accuracy"), "accuracy", "accuracy", True, True),
    (make_task("multiclass", BEST, name="kappa"), "quadratic kappa", "kappa", True, False),
    (make_task("multiclass", Form(top_k=5), name="map", k=5), "MAP@5", "map5", True, True),
    (make_task("multilabel", WIDE, name="roc_auc"), "ROC AUC", "roc_auc", True, False),
    (make_task("multiclass", WIDE, name="log_loss"), "log loss", "log_loss", False, True),
    (make_task("multiclass", WIDE, name="kl_divergence"), "KL divergence", "kl_divergence", False, True),
    (make_task("regression", NUMBER, name="rmse"), "RMSE", "rmse", False, False),
]


@pytest.mark.parametrize(("task", "title", "key", "higher", "is_mean"), CASES, ids=lambda value: str(value)[:20])
def test_a_metric_is_described_and_scores_a_resample_from_its_summary(
    task: Task, title: str, key: str, higher: bool, is_mean: bool
) -> None:
    scoring = find_scoring(task)
    assert (scoring.title, scoring.key, scoring.higher_is_better, scoring.is_mean) == (title, key, higher, is_mean)
    assert scoring.find_gain(2.0, 1.0) == (1 if higher else -1)
    random = np.random.default_rng(1)
    answers = random.random((40, 4))
    truth = np.eye(4, dtype=np.bool_)[random.integers(0, 4, 40)]
    if task.selects_labels:
        answers = answers > 0.6
    summary, drawn = scoring.summarise(answers, truth), random.integers(40, size=40)
    assert len(summary) == 40
    assert scoring.total(summary[drawn]) == pytest.approx(scoring.score(answers[drawn], truth[drawn]), abs=1e-12)
    if is_mean:
        assert summary.shape == (40,)
        assert scoring.total(summary) == pytest.approx(summary.mean())


def test_metrics_of_one_class_per_image_equal_scikit_learns() -> None:
    random = np.random.default_rng(2)
    scores = random.dirichlet(np.ones(5), 80)
    classes = random.integers(0, 4, 80)
    truth, chosen = np.eye(5, dtype=np.bool_)[classes], scores.argmax(axis=1)
    for metric, expected in (
        ({"name": "accuracy"}, accuracy_score(classes, chosen)),
        ({"name": "kappa"}, cohen_kappa_score(classes, chosen, weights="quadratic")),
        ({"name": "f_beta", "beta": 1.0, "average": "micro"}, f1_score(classes, chosen, average="micro")),
        ({"name": "f_beta", "beta": 1.0, "average": "macro"}, f1_score(classes, chosen, average="macro")),
        ({"name": "log_loss"}, log_loss(classes, scores, labels=range(5))),
        ({"name": "roc_auc"}, roc_auc_score(truth[:, :4], scores[:, :4])),  # class 4 is never true
    ):
        form = WIDE if metric["name"] in ("log_loss", "roc_auc") else BEST
        scoring = find_scoring(make_task("multiclass", form, **metric))
        assert scoring.score(scores, truth) == pytest.approx(expected, abs=1e-12)
        assert scoring.score(scores, truth.astype(np.float32)) == pytest.approx(expected, abs=1e-12)


def test_metrics_of_one_column_equal_scikit_learns() -> None:
    random = np.random.default_rng(3)
    truth, scores = random.random((50, 1)) < 0.4, random.random((50, 1))
    scoring = find_scoring(make_task("binary", WIDE, name="log_loss"))
    assert scoring.score(scores, truth) == pytest.approx(log_loss(truth[:, 0], scores[:, 0]), abs=1e-12)
    scoring = find_scoring(make_task("binary", WIDE, name="roc_auc"))
    assert scoring.score(scores, truth) == pytest.approx(roc_auc_score(truth[:, 0], scores[:, 0]), abs=1e-12)


def test_rmse_is_in_units_of_the_competition() -> None:
    random = np.random.default_rng(4)
    truth, found = random.random((2, 50, 1))
    task = dataclasses.replace(make_task("regression", NUMBER, name="rmse"), value_range=(-10.0, 90.0))
    expected = root_mean_squared_error(truth * 100 - 10, found * 100 - 10)
    assert find_scoring(task).score(found, truth.astype(np.float64)) == pytest.approx(expected, abs=1e-9)


def test_soft_truth_counts_as_its_best_class_or_as_labels_of_at_least_half() -> None:
    truth = np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]], np.float32)
    several = make_task("multilabel", WIDE, name="roc_auc")
    one = make_task("multiclass", BEST, name="accuracy")
    assert harden_truth(truth, several).tolist() == [[False, True, False], [False, False, False]]
    assert harden_truth(truth, one).tolist() == [[False, True, False], [True, False, False]]


def test_numbers_select_the_best_class_the_first_k_or_labels_of_at_least_half() -> None:
    answers = np.array([[0.2, 0.5, 0.6], [-np.inf, 0.3, -np.inf]])
    assert select_answers(answers, Task()).tolist() == [[False, True, True], [False, False, False]]
    ranked = dataclasses.replace(Task(), submission=Form(top_k=2))
    assert select_answers(answers, ranked).tolist() == [[False, True, True], [False, True, False]]
    one = make_task("multiclass", BEST, name="accuracy")
    assert select_answers(answers, one).tolist() == [[False, False, True], [False, True, False]]
