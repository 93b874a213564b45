import dataclasses

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, fbeta_score, log_loss, root_mean_squared_error

from inference.manifest.task import Form, Metric, Task
from packing.export.losses import count_flips, measure_loss


def make_task(kind: str) -> Task:
    ranked = Form(content="label_name", top_k=1)
    return {
        "f2": Task(),
        "accuracy": Task(type="multiclass", submission=ranked, metric=Metric("accuracy")),
        "map": Task(type="multiclass", submission=dataclasses.replace(ranked, top_k=3), metric=Metric("map", k=3)),
        "log_loss": Task(
            type="multiclass", submission=Form("wide", "probability", sum_to_one=True), metric=Metric("log_loss")
        ),
        "roc_auc": Task(submission=Form("wide", "probability"), metric=Metric("roc_auc")),
        "rmse": Task(type="regression", submission=Form("wide", "number"), metric=Metric("rmse"), value_range=(0, 50)),
    }[kind]


RANDOM = np.random.default_rng(4)
WANTED = RANDOM.dirichlet(np.ones(4), 40)
FOUND = 0.7 * WANTED + 0.3 * RANDOM.dirichlet(np.ones(4), 40)
TRUTH = np.eye(4, dtype=bool)[RANDOM.integers(0, 4, 40)]


def test_the_loss_of_labels_is_in_the_metrics_units() -> None:
    bests = FOUND.argmax(axis=1), WANTED.argmax(axis=1), TRUTH.argmax(axis=1)
    flipped = np.mean(bests[0] != bests[1])
    assert 0 < flipped < 1
    task = make_task("accuracy")
    assert count_flips(FOUND, WANTED, task) == count_flips(FOUND, WANTED, make_task("map")) == pytest.approx(flipped)
    wanted = accuracy_score(bests[2], bests[1]) - accuracy_score(bests[2], bests[0])
    assert measure_loss(FOUND, WANTED, TRUTH, task) == pytest.approx(wanted)
    assert measure_loss(FOUND, WANTED, None, task) == pytest.approx(flipped), "without the truth, every change is one"
    sets = FOUND > 0.3, WANTED > 0.3
    assert count_flips(*sets, make_task("f2")) == pytest.approx((sets[0] ^ sets[1]).sum() / sets[1].sum())
    scores = [fbeta_score(TRUTH, one, beta=2, average="samples", zero_division=0) for one in sets]
    assert measure_loss(*sets, TRUTH, make_task("f2")) == pytest.approx(scores[1] - scores[0])


def test_the_loss_of_numbers_is_relative() -> None:
    task = make_task("log_loss")
    assert count_flips(FOUND, WANTED, task) == 0
    before, after = (log_loss(TRUTH.argmax(axis=1), one) for one in (WANTED, FOUND))
    assert measure_loss(FOUND, WANTED, TRUTH, task) == pytest.approx((after - before) / before)
    gain = (entropy(WANTED, FOUND, axis=1)).mean() / entropy(WANTED.mean(axis=0))
    assert measure_loss(FOUND, WANTED, None, task) == pytest.approx(gain), "divergence by entropy of the mean answer"

    values = RANDOM.normal(size=(40, 1))
    near, far = values + RANDOM.normal(size=(40, 1)) / 20, values + RANDOM.normal(size=(40, 1)) * 9
    error = np.sqrt(np.mean((near - values) ** 2)) / values.std()
    task = make_task("rmse")
    assert measure_loss(near, values, None, task) == pytest.approx(error), "by the deviation, also for another range"
    assert measure_loss(far, values, None, task) == 1, "at most"
    assert measure_loss(values, values, None, task) == measure_loss(values, values, values, task) == 0
    truth = values + 0.5
    errors = [root_mean_squared_error(truth, one) for one in (values, near)]
    assert measure_loss(near, values, truth, task) == pytest.approx(errors[1] / errors[0] - 1)
    assert measure_loss(near, values, values, task) == 1, "any error is infinitely more than none"


def test_a_metric_without_a_value_shows_no_loss() -> None:
    nothing = np.zeros((40, 4), bool)
    assert measure_loss(FOUND, WANTED, nothing, make_task("roc_auc")) == 0
