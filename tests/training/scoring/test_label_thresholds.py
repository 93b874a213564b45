import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.manifest.labels import Labels
from training.scoring.label_thresholds import (
    STRENGTHS,
    count_images,
    find_group_places,
    fit_label_thresholds,
    shrink_places,
)
from zoo.metrics.f_beta import THRESHOLDS


def make_labels(size: int, first: int) -> Labels:
    """Return two groups, the first of `first` labels."""
    names = tuple(map(str, range(size)))
    return Labels(tuple(range(size)), names, {"a": tuple(range(first)), "b": tuple(range(first, size))})


def draw_case(seed: int, images: int, size: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores and truth; frequencies fall from 0.3, and the logits of a label are off by about `spread`."""
    random = np.random.default_rng(seed)
    shifts = spread * np.random.default_rng(99).normal(size=size)
    logits = np.log(0.3 / np.arange(1, size + 1)) + 1.5 * random.normal(size=(images, size))
    truth = random.random((images, size)) < 1 / (1 + np.exp(-logits))
    return (1 / (1 + np.exp(-logits - shifts))).astype(np.float32), truth


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_group_gets_its_best_threshold(beta: float) -> None:
    labels = make_labels(7, 3)
    scores, truth = draw_case(0, 60, 7, 1.0)
    places = find_group_places(count_images(scores, truth).score(beta), labels)
    for columns in labels.groups.values():
        kept = list(columns)
        figures = [
            fbeta_score(truth[:, kept], scores[:, kept] >= threshold, beta=beta, average="macro", zero_division=0)
            for threshold in map(float, THRESHOLDS[::20])
        ]
        threshold = float(THRESHOLDS[places[kept[0]]])
        found = fbeta_score(truth[:, kept], scores[:, kept] >= threshold, beta=beta, average="macro", zero_division=0)
        assert set(places[kept]) == {places[kept[0]]}
        assert found >= max(figures) - 1e-12


def test_a_rare_label_stays_near_its_group() -> None:
    own, group = np.array([180, 180, 180]), np.array([40, 40, 40])
    places = shrink_places(own, group, np.array([0, 10, 10**6]), 10.0)
    assert places[0] == 40
    assert places[2] == 180
    logits = np.log(THRESHOLDS / (1 - THRESHOLDS))
    assert logits[places[1]] == pytest.approx((logits[180] + logits[40]) / 2, abs=0.03)
    assert shrink_places(own, group, np.array([0, 10, 10**6]), np.inf).tolist() == [40, 40, 40]


def test_labels_that_are_off_in_different_ways_gain_by_their_own_thresholds() -> None:
    labels = make_labels(20, 8)
    fitted = fit_label_thresholds(*draw_case(1, 2000, 20, 1.0), labels, 1.0)
    scores, truth = draw_case(2, 4000, 20, 1.0)
    single, apart, shrunk = (
        fbeta_score(truth, scores >= thresholds, beta=1, average="macro", zero_division=0)
        for thresholds in (fitted.single, fitted.apart, fitted.shrunk)
    )
    assert shrunk > apart + 0.02
    assert apart > single - 0.01


def test_labels_that_are_all_right_lose_nothing_by_their_own_thresholds() -> None:
    labels = make_labels(20, 20 - 8)
    losses = []
    for seed in range(3):
        fitted = fit_label_thresholds(*draw_case(3 + seed, 500, 20, 0.0), labels, 1.0)
        scores, truth = draw_case(10 + seed, 4000, 20, 0.0)
        apart, shrunk = (
            fbeta_score(truth, scores >= thresholds, beta=1, average="macro", zero_division=0)
            for thresholds in (fitted.apart, fitted.shrunk)
        )
        losses.append(apart - shrunk)
    assert np.mean(losses) < 0.003


def test_a_single_image_gets_the_thresholds_of_its_groups() -> None:
    fitted = fit_label_thresholds(np.array([[0.9, 0.1]], np.float32), np.array([[True, False]]), make_labels(2, 1), 1.0)
    assert fitted.strength == STRENGTHS[-1]
    assert fitted.shrunk.tolist() == fitted.apart.tolist()
