import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import f1_score

from inference.manifest.task import Form, Metric, Task
from training.scoring.bootstrap import FEWEST, MOST, RESAMPLES, bootstrap_difference, bootstrap_mean, count_resamples
from zoo.metrics.scoring import find_scoring

WIDE = Form(layout="wide", content="probability")
MICRO = Task(metric=Metric(beta=1.0, average="micro"))
LOSS = Task(type="multiclass", submission=WIDE, metric=Metric(name="log_loss"))
AREA = Task(submission=WIDE, metric=Metric(name="roc_auc"))


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(3, 2, 4000)
    low, high = bootstrap_mean(values, seed=0)
    width = norm.ppf(0.975) * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - width, values.mean() + width), abs=0.05 * width)


@pytest.mark.parametrize("task", [Task(), LOSS], ids=["f2", "log_loss"])
def test_the_difference_of_two_means_is_that_of_the_images(task: Task) -> None:
    scoring = find_scoring(task)
    one, other = np.random.default_rng(1).random((2, 500))
    gains = one - other if task is not LOSS else other - one
    expected = float(gains.mean()), *bootstrap_mean(gains, 7)
    assert bootstrap_difference(scoring, one, other, 7) == expected


def test_the_difference_of_other_metrics_is_that_of_resampled_images() -> None:
    random = np.random.default_rng(2)
    truth = random.random((400, 6)) < 0.3
    good, bad = (truth ^ (random.random(truth.shape) < share) for share in (0.1, 0.2))
    scoring = find_scoring(MICRO)
    one, other = (scoring.summarise(answers, truth) for answers in (good, bad))
    gain, low, high = bootstrap_difference(scoring, one, other, 0)
    assert gain == pytest.approx(
        f1_score(truth, good, average="micro") - f1_score(truth, bad, average="micro"), abs=1e-12
    )
    found = []
    for _ in range(2000):
        drawn = random.integers(400, size=400)
        found.append(scoring.score(good[drawn], truth[drawn]) - scoring.score(bad[drawn], truth[drawn]))
    assert (low, high) == pytest.approx(tuple(np.percentile(found, [2.5, 97.5])), abs=0.15 * (high - low))
    assert bootstrap_difference(scoring, other, one, 0) == pytest.approx((-gain, -high, -low))


def test_equal_answers_differ_by_nothing() -> None:
    truth = np.random.default_rng(3).random((30, 4)) < 0.3
    for task in (Task(), MICRO):
        summary = find_scoring(task).summarise(truth, truth)
        assert bootstrap_difference(find_scoring(task), summary, summary.copy(), 0) == (0, 0, 0)


def test_resamples_without_an_area_are_left_out() -> None:
    truth = np.zeros((12, 1), np.bool_)
    truth[0] = True
    scores = np.linspace(0, 1, 12)[:, None]
    scoring = find_scoring(AREA)
    one, other = (scoring.summarise(answers, truth) for answers in (-scores, scores))
    assert bootstrap_difference(scoring, one, other, 0) == pytest.approx((1, 1, 1))


def test_large_summaries_are_resampled_less_often() -> None:
    assert count_resamples(find_scoring(Task()), np.zeros(10)) == RESAMPLES
    assert count_resamples(find_scoring(AREA), np.broadcast_to(0, (24_000, 11))) == MOST
    assert FEWEST < count_resamples(find_scoring(AREA), np.broadcast_to(0, (24_000, 674))) < MOST
    assert count_resamples(find_scoring(AREA), np.broadcast_to(0, (10**6, 1000))) == FEWEST
