import numpy as np
import pytest
from sklearn.metrics import log_loss, root_mean_squared_error

from inference.ensemble.fitted_rules import adjust_probabilities, scale_numbers
from inference.manifest.decision import Fitted
from inference.manifest.task import Form, Metric, Task
from training.scoring.calibrate_numbers import fit_line, fit_probabilities
from zoo.metrics.scoring import find_scoring

ONE = Task(type="multiclass", submission=Form(layout="wide", content="probability"), metric=Metric(name="log_loss"))
SEVERAL = Task(type="multilabel", submission=Form(layout="wide", content="probability"), metric=Metric(name="log_loss"))


def draw_classes(seed: int, images: int, certainty: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities whose logits are `certainty` times the right ones, and the true classes."""
    random = np.random.default_rng(seed)
    logits = 1.5 * random.normal(size=(images, 4))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classes = (random.random((images, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=3)
    shown = chances**certainty
    return (shown / shown.sum(axis=1, keepdims=True)).astype(np.float32), classes


def test_the_temperature_that_made_scores_too_certain_is_found() -> None:
    scores, classes = draw_classes(0, 3000, 3.0)
    fitted = fit_probabilities(scores, np.eye(4, dtype=np.bool_)[classes], find_scoring(ONE), normalise=True)
    assert fitted.temperature == pytest.approx(3, rel=0.1)
    judged, true = draw_classes(1, 3000, 3.0)
    changed = adjust_probabilities(judged, fitted)
    np.testing.assert_allclose(changed.sum(axis=1), 1, atol=1e-12)
    assert log_loss(true, changed) < log_loss(true, judged) - 0.1


def test_right_probabilities_lose_nothing() -> None:
    losses = []
    for seed in range(3):
        scores, classes = draw_classes(seed, 500, 1.0)
        fitted = fit_probabilities(scores, np.eye(4, dtype=np.bool_)[classes], find_scoring(ONE), normalise=True)
        judged, true = draw_classes(10 + seed, 2000, 1.0)
        losses.append(log_loss(true, adjust_probabilities(judged, fitted)) - log_loss(true, judged))
    assert np.mean(losses) < 0.003


def test_a_rare_sure_mistake_is_clipped() -> None:
    random = np.random.default_rng(2)
    truth = random.random((1000, 2)) < 0.5
    scores = truth.astype(np.float32)
    wrong = scores.copy()
    wrong[:20] = 1 - wrong[:20]
    fitted = fit_probabilities(wrong, truth, find_scoring(SEVERAL), normalise=False)
    assert find_scoring(SEVERAL).score(adjust_probabilities(wrong, fitted), truth) < 0.12  # entropy of 2 %: 0.098
    faultless = fit_probabilities(scores, truth, find_scoring(SEVERAL), normalise=False)
    assert faultless.clip == pytest.approx(0.5 / 1001, rel=1e-4)
    assert find_scoring(SEVERAL).score(adjust_probabilities(wrong, faultless), truth) < 0.2  # 0.7 without


def test_soft_labels_are_fitted_by_their_divergence() -> None:
    random = np.random.default_rng(3)
    task = Task(type="multiclass", submission=ONE.submission, metric=Metric(name="kl_divergence"))
    truth = random.dirichlet(np.ones(5), 400).astype(np.float32)
    scores = truth**2 / (truth**2).sum(axis=1, keepdims=True)
    fitted = fit_probabilities(scores, truth, find_scoring(task), normalise=True)
    assert fitted.temperature == pytest.approx(2, rel=0.02)
    assert find_scoring(task).score(adjust_probabilities(scores, fitted), truth) < 0.001


def test_a_line_equals_that_of_numpy_and_gains_on_other_images() -> None:
    random = np.random.default_rng(4)
    truth = random.random((2, 500, 1)).astype(np.float32)
    scores = (0.3 + 0.4 * truth + 0.1 * random.normal(size=truth.shape)).astype(np.float32)
    fitted = fit_line(scores[0], truth[0])
    slope, intercept = np.polyfit(scores[0, :, 0], truth[0, :, 0], 1)
    assert (fitted.slope, fitted.intercept) == pytest.approx((slope, intercept), abs=1e-4)
    found = root_mean_squared_error(truth[1], scale_numbers(scores[1], fitted))
    assert found < root_mean_squared_error(truth[1], scores[1]) - 0.01


def test_lines_without_slope() -> None:
    assert fit_line(np.array([[0.5]], np.float32), np.array([[0.7]], np.float32)) == Fitted()
    equal = fit_line(np.full((2, 1), 0.5, np.float32), np.array([[0.6], [0.8]], np.float32))
    assert (equal.slope, equal.intercept) == (1, pytest.approx(0.2))
