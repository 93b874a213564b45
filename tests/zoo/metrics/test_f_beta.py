import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from zoo.metrics.f_beta import (
    THRESHOLDS,
    count_above,
    count_pairs,
    find_threshold,
    mark_cells,
    score_classes,
    score_counts,
    score_labels,
    score_pairs,
    score_samples,
)

BETAS = (0.5, 1.0, 2.0)


def draw_case(seed: int, images: int = 40, labels: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores of float32 and truth; some images have no true label."""
    random = np.random.default_rng(seed)
    truth = random.random((images, labels)) < 0.25
    scores = np.clip(0.3 * truth + random.random((images, labels)) * 0.7, 0, 1).astype(np.float32)
    return scores, truth


def draw_labels(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw predicted and true labels of a few images: empty rows, absent labels and one label among them."""
    shape = random.integers(1, 7), random.integers(1, 6)
    return random.random(shape) < random.choice([0, 0.3, 1]), random.random(shape) < random.choice([0, 0.3, 0.8])


def score_slowly(predicted: list[bool], truth: list[bool], beta: float) -> float:
    """Compute F-beta of two lists from precision and recall."""
    hits = sum(one and other for one, other in zip(predicted, truth, strict=True))
    if not hits:
        return 0.0
    precision, recall = hits / sum(predicted), hits / sum(truth)
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def test_all_averages_equal_slow_ones_in_1000_cases() -> None:
    random = np.random.default_rng(0)
    for case in range(1000):
        predicted, truth = draw_labels(random)
        beta = BETAS[case % 3]
        pairs = [predicted.ravel().tolist()], [truth.ravel().tolist()]
        for found, (rows, true) in (
            (score_samples(predicted, truth, beta).mean(), (predicted.tolist(), truth.tolist())),
            (score_pairs(count_pairs(predicted, truth), beta), pairs),
            (score_labels(mark_cells(predicted, truth), beta), (predicted.T.tolist(), truth.T.tolist())),
        ):
            expected = [score_slowly(*row, beta) for row in zip(rows, true, strict=True)]
            assert found == pytest.approx(sum(expected) / len(expected), abs=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("seed", range(3))
def test_all_averages_equal_scikit_learns(seed: int, beta: float) -> None:
    scores, truth = draw_case(seed)
    truth[:, 0] = False
    for threshold in (0.0, 0.4, 1.1):
        predicted = scores >= threshold
        found = {
            "samples": score_samples(predicted, truth, beta).mean(),
            "micro": score_pairs(count_pairs(predicted, truth), beta),
            "macro": score_labels(mark_cells(predicted, truth), beta),
        }
        for average, figure in found.items():
            expected = fbeta_score(truth, predicted, beta=beta, average=average, zero_division=0)
            assert figure == pytest.approx(expected, abs=1e-12)


def test_macro_over_classes_equals_scikit_learns() -> None:
    random = np.random.default_rng(1)
    for case in range(60):
        classes = random.integers(0, random.integers(1, 9), (random.integers(1, 20), 2)) * 3  # with absent classes
        expected = fbeta_score(*classes.T[::-1], beta=BETAS[case % 3], average="macro", zero_division=0)
        assert score_classes(classes, BETAS[case % 3]) == pytest.approx(expected, abs=1e-12)


def test_macro_over_classes_equals_a_slow_one_in_1000_cases() -> None:
    random = np.random.default_rng(2)
    for case in range(1000):
        classes = random.integers(0, random.integers(1, 5), (random.integers(1, 8), 2))
        expected = [score_slowly(*(classes == label).T.tolist(), BETAS[case % 3]) for label in np.unique(classes)]
        assert score_classes(classes, BETAS[case % 3]) == pytest.approx(np.mean(expected), abs=1e-12)


def test_f_beta_of_a_case_by_hand() -> None:
    # 1 hit of 2 predicted and 3 true: P = 1/2, R = 1/3.
    hits, predicted, true = np.array([1]), np.array([2]), np.array([3])
    assert score_counts(hits, predicted, true, 2.0).tolist() == [5 / 14]
    assert score_counts(hits, predicted, true, 1.0).tolist() == [0.4]
    assert score_counts(hits, predicted, true, 0.5).tolist() == [1.25 / 2.75]


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64])
def test_a_large_beta_does_not_overflow_small_integers(kind: type[np.integer]) -> None:
    found = score_counts(np.array([300], kind), np.array([300], kind), np.array([300], kind), 100.0)
    assert found.tolist() == [1.0]


def test_f_beta_of_an_image_without_true_or_predicted_labels_is_0() -> None:
    nothing = np.zeros((1, 3), np.bool_)
    assert score_samples(nothing, nothing, 2.0).tolist() == [0.0]
    assert score_pairs(count_pairs(nothing, nothing), 1.0) == 0
    assert score_labels(mark_cells(nothing, nothing), 1.0) == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_counts_equal_those_of_a_comparison(dtype: type[np.floating]) -> None:
    scores = np.concatenate([THRESHOLDS, np.random.default_rng(0).random(1801)]).astype(dtype).reshape(40, 50)
    expected = np.stack([(scores >= float(threshold)).sum(axis=1) for threshold in THRESHOLDS], axis=1)
    np.testing.assert_array_equal(count_above(scores), expected)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_best_threshold_is_found(beta: float) -> None:
    scores, truth = draw_case(int(2 * beta))
    found = []
    for threshold in map(float, THRESHOLDS):
        rows = zip((scores >= threshold).tolist(), truth.tolist(), strict=True)
        found.append(np.mean([score_slowly(*row, beta) for row in rows]))
    threshold, best = find_threshold(scores, truth, beta)
    assert threshold == THRESHOLDS[int(np.argmax(found))]
    assert best == pytest.approx(max(found), abs=1e-12)
