import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from zoo.f2 import THRESHOLDS, count_above, find_threshold, score_samples


def draw_case(seed: int, images: int = 40, labels: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores of float32 and truth; some images have no true label."""
    random = np.random.default_rng(seed)
    truth = random.random((images, labels)) < 0.25
    scores = np.clip(0.3 * truth + random.random((images, labels)) * 0.7, 0, 1).astype(np.float32)
    return scores, truth


@pytest.mark.parametrize("seed", range(5))
def test_f2_equals_scikit_learns(seed: int) -> None:
    scores, truth = draw_case(seed)
    for threshold in (0.0, 0.1, 0.4, 0.9, 1.1):
        predicted = scores >= threshold
        expected = fbeta_score(truth, predicted, beta=2, average="samples", zero_division=0)
        assert score_samples(predicted, truth).mean() == pytest.approx(expected, abs=1e-12)


def test_f2_of_an_image_without_true_or_predicted_labels_is_0() -> None:
    nothing = np.zeros((1, 3), np.bool_)
    assert score_samples(nothing, nothing).tolist() == [0.0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_counts_equal_those_of_a_comparison(dtype: type[np.floating]) -> None:
    scores = np.concatenate([THRESHOLDS, np.random.default_rng(0).random(1801)]).astype(dtype).reshape(40, 50)
    expected = np.stack([(scores >= float(threshold)).sum(axis=1) for threshold in THRESHOLDS], axis=1)
    np.testing.assert_array_equal(count_above(scores), expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_is_found(seed: int) -> None:
    scores, truth = draw_case(seed)
    f2 = [
        fbeta_score(truth, scores >= threshold, beta=2, average="samples", zero_division=0)
        for threshold in map(float, THRESHOLDS)
    ]
    threshold, best = find_threshold(scores, truth)
    assert threshold == THRESHOLDS[int(np.argmax(f2))]
    assert best == pytest.approx(max(f2), abs=1e-12)
