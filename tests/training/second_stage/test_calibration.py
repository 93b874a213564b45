import dataclasses
import json

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from inference.manifest.decision import Calibration
from inference.manifest.schema import parse_record
from training.second_stage.calibration import MOST_POINTS, fit_calibration, measure_reliability


def regress_slowly(truth: np.ndarray) -> np.ndarray:
    """Return the isotonic regression of the truth, in the order of the scores, by the max-min formula."""
    places = range(len(truth))
    return np.array(
        [
            max(min(truth[start : end + 1].mean() for end in places[place:]) for start in places[: place + 1])
            for place in places
        ]
    )


def draw_skewed(seed: int, images: int = 2000, labels: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores mostly below 0.01, like a network's; the lower probabilities behind them; the truth."""
    random = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-random.normal(-5.5, 2.2, (images, labels)))).astype(np.float32)
    chances = 0.9 * scores**1.3
    return scores, chances, random.random(scores.shape) < chances


def apply_curve(scores: np.ndarray, curve: Calibration) -> np.ndarray:
    return np.interp(scores, curve.scores, curve.chances)


@pytest.mark.parametrize("seed", range(5))
def test_each_point_is_a_block_of_the_isotonic_regression(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.permutation(np.arange(1, 61) / 64).reshape(6, 10)
    truth = random.random(scores.shape) < scores**2
    order = scores.ravel().argsort()
    fitted = regress_slowly(truth.ravel()[order])
    assert fitted == pytest.approx(
        IsotonicRegression().fit(scores.ravel(), truth.ravel()).predict(scores.ravel()[order])
    )
    curve = fit_calibration(scores, truth)
    chances = np.unique(fitted.round(12))
    assert curve.chances == pytest.approx(chances, abs=1e-8)
    assert curve.scores == pytest.approx(
        [scores.ravel()[order][np.isclose(fitted, chance)].mean() for chance in chances], abs=1e-8
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_few_points_follow_the_regression_of_all_pairs_of_skewed_scores(dtype: type) -> None:
    scores, _, truth = draw_skewed(1)
    scores = scores.astype(dtype)
    pairs = scores.ravel().astype(np.float64)
    steps = IsotonicRegression(y_min=0, y_max=1).fit_transform(pairs, truth.ravel())
    chances, blocks = np.unique(steps, return_inverse=True)
    assert len(chances) > MOST_POINTS, "the test needs removed points"
    lines = np.interp(pairs, np.bincount(blocks, weights=pairs) / np.bincount(blocks), chances)
    curve = fit_calibration(scores, truth)
    assert len(curve.scores) == MOST_POINTS
    found = apply_curve(pairs, curve)
    for part in (steps > 0.01, steps <= 0.01):
        assert np.abs(found - lines)[part].mean() < 0.015 * lines[part].mean()
    assert np.abs(found - lines).max() < 0.05
    assert found.sum() == pytest.approx(truth.sum(), rel=0.005), "the probabilities add up to the number of true labels"


def test_the_curve_finds_the_probabilities_behind_the_scores() -> None:
    scores, _, truth = draw_skewed(2)
    fresh, chances, outcome = draw_skewed(3)
    found = apply_curve(fresh, fit_calibration(scores, truth))
    for low, high in ((0.003, 0.01), (0.01, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8)):
        part = (chances >= low) & (chances < high)
        assert found[part].mean() == pytest.approx(chances[part].mean(), rel=0.1)
    best = measure_reliability(chances, outcome).log_loss
    after, before = measure_reliability(found, outcome).log_loss, measure_reliability(fresh, outcome).log_loss
    assert after - best < 0.1 * (before - best)


def test_a_second_calibration_changes_little() -> None:
    scores, _, truth = draw_skewed(4)
    chances = apply_curve(scores, fit_calibration(scores, truth))
    again = apply_curve(chances, fit_calibration(chances, truth))
    assert np.abs(again - chances).mean() < 0.02 * chances.mean()
    assert np.abs(again - chances).max() < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_scores_ascend_chances_never_fall_and_the_manifest_accepts_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    steps = 0.5 + random.integers(0, 40, (200, 100)) * 2.0**-24  # neighbours that only float32 distinguishes
    scores = np.where(random.random(steps.shape) < 0.5, steps, draw_skewed(seed, 200, 100)[0]).astype(np.float32)
    curve = fit_calibration(scores, random.random(scores.shape) < scores)
    assert (np.diff(curve.scores) > 0).all()
    assert (np.diff(curve.chances) >= 0).all()
    assert parse_record(Calibration, json.loads(json.dumps(dataclasses.asdict(curve)))) == curve


@pytest.mark.parametrize("true, chance", [(0, 0.0), (1, 1.0)])
def test_labels_all_false_or_all_true_have_one_probability(true: int, chance: float) -> None:
    scores = np.random.default_rng(5).random((20, 8)).astype(np.float32)
    curve = fit_calibration(scores, np.full(scores.shape, true, np.bool_))
    assert curve.chances == (chance,)
    assert curve.scores == (pytest.approx(scores.mean(dtype=np.float64)),)


def test_a_single_score_gets_the_share_of_true_pairs() -> None:
    truth = np.arange(40).reshape(4, 10) < 7
    assert fit_calibration(np.full((4, 10), 0.25, np.float16), truth) == Calibration((0.25,), (0.175,))
    assert fit_calibration(np.zeros((4, 10), np.float16), truth) == Calibration((0.0,), (0.175,))


def test_scores_with_inverse_ranking_give_one_probability() -> None:
    scores = np.arange(1, 41).reshape(4, 10) / 64
    assert fit_calibration(scores, scores < 0.3).chances == (pytest.approx((scores < 0.3).mean()),)


def test_reliability_equals_a_slow_count() -> None:
    _, chances, truth = draw_skewed(6, 300, 40)
    chances[:3], chances[3:5] = 0, 1
    found = measure_reliability(chances, truth)
    clipped = np.clip(chances.ravel().astype(np.float64), 1e-6, 1 - 1e-6)
    assert found.log_loss == pytest.approx(log_loss(truth.ravel(), clipped), rel=1e-5)
    assert found.counts.sum() == truth.size
    assert (found.counts > 0).all()
    part = chances[(chances >= 0.03) & (chances < 0.1)]
    place = int(np.abs(found.chances - part.mean()).argmin())
    assert found.chances[place] == pytest.approx(part.mean(), rel=1e-5)
    assert found.counts[place] == len(part)
    assert found.frequencies[place] == pytest.approx(truth[(chances >= 0.03) & (chances < 0.1)].mean())


def test_empty_bins_of_reliability_are_left_out() -> None:
    found = measure_reliability(np.array([[0.95, 0.25], [1.0, 0.0]]), np.array([[True, False], [True, False]]))
    assert found.chances == pytest.approx([0, 0.25, 0.975])
    assert found.frequencies.tolist() == [0, 0, 1]
    assert found.counts.tolist() == [1, 1, 2]
    assert found.log_loss == pytest.approx(-(np.log(0.95) + np.log(0.75)) / 4)
