import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score

from training.scoring import class_weights
from training.scoring.class_weights import fit_class_weights, fit_each_class, fit_power, try_weights, weigh_equally


def draw_case(seed: int, images: int, size: int, *, skewed: bool, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw the scores of a network that knows the frequencies of the classes, and the true classes."""
    random = np.random.default_rng(seed)
    frequencies = 1 / np.arange(1, size + 1) ** (2 if skewed else 0)
    classes = random.choice(size, images, p=frequencies / frequencies.sum())
    evidence = (np.eye(size)[classes] + noise * random.normal(size=(images, size))) / noise**2
    chances = np.exp(evidence) * frequencies
    return (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32), classes


def score(scores: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    """Return scikit-learn's macro F1 of the highest weighted score."""
    return float(f1_score(classes, (scores * weights).argmax(axis=1), average="macro", zero_division=0))


def test_weights_gain_on_other_images_of_skewed_classes() -> None:
    weights = fit_class_weights(*draw_case(0, 1500, 6, skewed=True), 1.0)
    judged = draw_case(1, 3000, 6, skewed=True)
    assert score(*judged, weights) > score(*judged, np.ones(6)) + 0.03


def test_weights_lose_nothing_on_other_images_of_equal_classes() -> None:
    losses = []
    for seed in range(3):
        weights = fit_class_weights(*draw_case(seed, 400, 5, skewed=False), 1.0)
        judged = draw_case(10 + seed, 3000, 5, skewed=False)
        losses.append(score(*judged, np.ones(5)) - score(*judged, weights))
    assert np.mean(losses) < 0.003


def test_no_step_of_the_fit_is_worse_on_its_own_images() -> None:
    case = draw_case(2, 300, 5, skewed=True)
    equal, power, each = (score(*case, fit(*case, 1.0)) for fit in (weigh_equally, fit_power, fit_each_class))
    assert equal <= power <= each


def test_a_trial_equals_the_argmax_with_that_weight_also_with_ties() -> None:
    random = np.random.default_rng(3)
    scores, classes = random.integers(0, 5, (60, 4)) / 4, random.integers(0, 4, 60)
    weights, candidates = np.array([1.0, 0.5, 2.0, 1.0]), np.array([0.25, 1.0, 2.0])
    for column in range(4):
        found = try_weights(scores[:, column], scores * weights, classes, column, candidates, 1.0)
        for weight, figure in zip(candidates, found, strict=True):
            changed = np.where(np.arange(4) == column, weight, weights)
            assert figure == pytest.approx(score(scores, classes, changed), abs=1e-12)


def test_two_classes_get_the_best_ratio() -> None:
    scores, classes = draw_case(4, 200, 2, skewed=True)
    best = max(score(scores, classes, np.array([1, 2.0**power])) for power in np.arange(-3, 6, 0.25))
    assert score(scores, classes, fit_each_class(scores, classes, 1.0)) >= best - 0.02


def test_many_classes_are_weighted_by_their_frequency_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_weights, "MOST_CLASSES", 5)
    scores, classes = draw_case(5, 1500, 6, skewed=True)
    weights = fit_class_weights(scores, classes, 1.0)
    assert weights.tolist() == fit_power(scores, classes, 1.0).tolist()
    order = np.argsort(-np.bincount(classes, minlength=6), kind="stable")
    assert all(weights[first] <= weights[second] for first, second in itertools.pairwise(order))


def test_one_image_leaves_the_weights_equal() -> None:
    assert fit_class_weights(np.array([[0.2, 0.8]], np.float32), np.array([1]), 1.0).tolist() == [1, 1]
