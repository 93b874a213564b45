import itertools

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from inference.ensemble.fitted_rules import cut_classes
from inference.manifest.decision import Fitted
from training.scoring.cut_points import count_candidates, fit_cuts, round_expectations


def draw_case(seed: int, images: int, bias: float, size: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Draw the scores of ordered classes around a noisy class, and the true classes; `bias` moves the scores down."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, size, images)
    centre = (1 - bias) * (classes + 0.8 * random.normal(size=images))
    scores = np.exp(-((np.arange(size) - centre[:, None]) ** 2))
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), classes


def score(scores: np.ndarray, classes: np.ndarray, cuts: tuple[float, ...]) -> float:
    """Return scikit-learn's kappa of the kernel's decision."""
    chosen = cut_classes(scores, Fitted(cuts=cuts)).argmax(axis=1)
    return float(cohen_kappa_score(classes, chosen, weights="quadratic"))


def test_cuts_gain_on_other_images_if_the_scores_are_biased() -> None:
    cuts = fit_cuts(*draw_case(0, 1000, 0.3))
    judged = draw_case(1, 3000, 0.3)
    assert score(*judged, cuts) > score(*judged, round_expectations(5)) + 0.02


def test_cuts_lose_nothing_on_other_images_if_the_scores_are_right() -> None:
    losses = []
    for seed in range(4):
        cuts = fit_cuts(*draw_case(seed, 800, 0.0))
        judged = draw_case(10 + seed, 3000, 0.0)
        losses.append(score(*judged, round_expectations(5)) - score(*judged, cuts))
    assert np.mean(losses) < 0.003


def test_the_best_pair_of_cuts_is_found() -> None:
    scores, classes = draw_case(2, 40, 0.2, size=3)
    candidates = count_candidates(scores, classes)
    pairs = np.array(list(itertools.combinations_with_replacement(range(0, len(candidates.cuts), 2), 2)))
    best = candidates.score(pairs).max()
    assert score(scores, classes, fit_cuts(scores, classes)) >= best - 1e-12


def test_the_search_scores_as_scikit_learn_does() -> None:
    scores, classes = draw_case(3, 60, 0.1)
    candidates = count_candidates(scores, classes)
    places = np.sort(np.random.default_rng(0).integers(0, len(candidates.cuts), (30, 4)), axis=1)
    expected = [score(scores, classes, tuple(candidates.cuts[row])) for row in places]
    assert candidates.score(places).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("true", [0, 2])
def test_images_of_one_class_leave_the_cuts_as_they_are(true: int) -> None:
    scores, classes = draw_case(4, 30, 0.0, size=3)[0], np.full(30, true)
    assert fit_cuts(scores, classes) == round_expectations(3)
