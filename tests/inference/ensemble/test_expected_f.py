import itertools

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.ensemble.decide import decide
from inference.ensemble.expected_f import CHUNK, bound_true, decide_expected, expect_f, rank_likeliest
from inference.manifest.decision import Calibration, Decision, GroupDecision
from inference.manifest.labels import Labels

LABELS = Labels((10, 11, 12, 20, 21), ("c::a", "t::b", "c::d", "t::e", "t::f"), {"c": (0, 2), "t": (1, 3, 4)})


def list_sets(size: int) -> np.ndarray:
    """Return every set of `size` labels, (sets, labels)."""
    return np.array(list(itertools.product((0, 1), repeat=size)))


def expect_all_sets(probabilities: np.ndarray, beta: float) -> np.ndarray:
    """Return the expected F-beta of selecting each set of list_sets, from precision and recall in every outcome."""
    sets = list_sets(len(probabilities))
    hits = sets @ sets.T  # (selected, true)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / sets.sum(axis=1)[:, None], hits / sets.sum(axis=1)[None, :]
        scores = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
        scores = np.where(hits > 0, scores, 0)
    return scores @ np.where(sets, probabilities, 1 - probabilities).prod(axis=1)


def draw_probabilities(random: np.random.Generator, size: int) -> np.ndarray:
    """Draw probabilities that are uniform, mostly small, mostly large, in steps (with ties), or with some 0 and 1."""
    kind = random.integers(5)
    if kind == 3:
        return random.integers(0, 6, size) / 5
    probabilities = random.beta(*((1, 1), (0.4, 3), (3, 0.4), (1, 1), (1, 2))[kind], size)
    return (
        np.where(random.random(size) < 0.3, random.integers(0, 2, size), probabilities) if kind == 4 else probabilities
    )


def convolve_f2(probabilities: np.ndarray, most: int) -> np.ndarray:
    """Return the expected F2 of the 1, 2, ... `most` most probable labels of one image, by convolution."""
    probabilities = np.sort(probabilities)[::-1]
    expected = []
    for selected in range(1, most + 1):
        hits, misses = count_by_convolution(probabilities[:selected]), count_by_convolution(probabilities[selected:])
        right, missed = np.arange(len(hits))[:, None], np.arange(len(misses))[None, :]
        expected.append(float((np.outer(hits, misses) * 5 * right / (selected + 4 * (right + missed))).sum()))
    return np.array(expected)


def count_by_convolution(probabilities: np.ndarray) -> np.ndarray:
    """Return the distribution of the number of true labels."""
    distribution = np.ones(1)
    for probability in probabilities:
        distribution = np.convolve(distribution, (1 - probability, probability))
    return distribution


def test_a_thousand_selections_agree_with_all_sets_and_outcomes() -> None:
    random = np.random.default_rng(0)
    for case in range(1000):
        size = int(random.integers(1, 9))
        probabilities = draw_probabilities(random, size)
        maximum = size if case % 2 else int(random.integers(1, size + 1))
        beta = (2, 1, 0.5)[case % 3]
        sets, expected = list_sets(size), expect_all_sets(probabilities, beta)
        allowed = (sets.sum(axis=1) >= 1) & (sets.sum(axis=1) <= maximum)
        best = expected[allowed].max()
        selected = decide_expected(probabilities[None], maximum, beta)[0]
        found = expected[(sets == selected).all(axis=1)][0]
        assert 1 <= selected.sum() <= maximum
        assert found == pytest.approx(best, abs=1e-12)
        assert selected.sum() == sets[allowed & (expected > best - 1e-11)].sum(axis=1).min(), "the fewest of equal sets"


@pytest.mark.parametrize("low, high, size", [(0.6, 0.98, 45), (0.0, 1.0, 60), (0.1, 0.3, 200), (0.0, 0.02, 300)])
def test_expected_f_agrees_with_complete_distributions_for_few_and_many_true_labels(
    low: float, high: float, size: int
) -> None:
    random = np.random.default_rng(1)
    probabilities = random.uniform(low, high, (3, size))
    probabilities[0] /= 4  # the other images determine the largest number counted
    expected = expect_f(probabilities, rank_likeliest(probabilities, 40), 2)
    for image, row in enumerate(probabilities):
        assert expected[:, image] == pytest.approx(convolve_f2(row, 40), abs=2e-8)


def test_more_true_labels_than_counted_have_a_negligible_probability() -> None:
    random = np.random.default_rng(2)
    cut = 0
    for size in (1, 5, 40, 150, 400):
        for most in (1e-4, 0.02, 0.1, 0.5, 1.0):
            probabilities = random.uniform(0, most, (1, size))
            bound = bound_true(probabilities)
            assert count_by_convolution(probabilities[0])[bound + 1 :].sum() < 2e-8
            cut += bound < size
    assert cut > 10, "the bound must be below the number of labels"


def test_every_image_has_a_label_and_is_independent_of_other_images() -> None:
    random = np.random.default_rng(3)
    probabilities = random.beta(0.2, 2, (2 * CHUNK + 7, 30)).astype(np.float32)
    probabilities[::5] = 0
    selected = decide_expected(probabilities, 6, 2)
    assert selected.any(axis=1).all()
    assert selected.sum(axis=1).max() == 6
    assert selected.dtype == np.bool_
    alone = [decide_expected(row[None], 6, 2)[0] for row in probabilities]
    assert np.array_equal(selected, alone)
    assert decide_expected(probabilities[:0], 6, 2).shape == (0, 30)


def test_certain_labels_are_selected_and_impossible_labels_are_not() -> None:
    probabilities = np.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1e-9, 0, 0]])
    expected = [[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]]
    assert decide_expected(probabilities, 15, 2).astype(int).tolist() == expected


def test_equal_probabilities_rank_in_label_order() -> None:
    probabilities = np.array([[0.2, 0.5, 0.5, 0.2, 0.5, 0.5], [0.9] * 6])
    assert rank_likeliest(probabilities, 6).tolist() == [[1, 2, 4, 5, 0, 3], [0, 1, 2, 3, 4, 5]]
    assert decide_expected(probabilities, 2, 2).astype(int).tolist() == [[0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


def test_selected_labels_are_the_most_probable_and_a_larger_maximum_is_never_worse() -> None:
    random = np.random.default_rng(4)
    probabilities = random.beta(0.3, 2, (200, 25))
    before = np.zeros(200)
    for maximum in (1, 2, 4, 8, 25):
        selected = decide_expected(probabilities, maximum, 2)
        assert (
            np.where(selected, probabilities, 2).min(axis=1) >= np.where(selected, -1, probabilities).max(axis=1)
        ).all()
        counts = selected.sum(axis=1)
        value = expect_f(probabilities, rank_likeliest(probabilities, 25), 2)[counts - 1, np.arange(200)]
        assert (value >= before - 1e-12).all()
        before = value


def test_f2_on_drawn_labels_is_as_expected_and_no_threshold_gives_more() -> None:
    random = np.random.default_rng(5)
    probabilities = np.repeat(random.beta(0.3, 2, (100, 20)), 100, axis=0)
    truth = random.random(probabilities.shape) < probabilities

    def score(selected: np.ndarray) -> float:
        return float(fbeta_score(truth, selected, beta=2, average="samples", zero_division=0))

    selected = decide_expected(probabilities, 20, 2)
    expected = expect_f(probabilities, rank_likeliest(probabilities, 20), 2).max(axis=0)
    found = score(selected)
    assert found == pytest.approx(expected.mean(), abs=0.01)
    assert found > max(score(probabilities >= threshold) for threshold in np.arange(0.02, 0.6, 0.04))


def test_the_rule_expected_f_uses_the_curve_of_each_group() -> None:
    curves = {"c": Calibration((0.1, 0.6), (0.0, 0.9)), "t": Calibration((0.0, 0.5, 1.0), (0.01, 0.02, 0.3))}
    decision = Decision({}, (10,), "expected_f", curves, maximum=3)
    scores = np.random.default_rng(6).random((500, 5)).astype(np.float32)
    probabilities = np.empty(scores.shape)
    for image, label in np.ndindex(*scores.shape):
        score = float(scores[image, label])
        if label in LABELS.groups["c"]:
            probabilities[image, label] = min(max((score - 0.1) / 0.5, 0), 1) * 0.9
        else:
            probabilities[image, label] = 0.01 + 0.02 * score if score < 0.5 else 0.02 + 0.56 * (score - 0.5)
    selected = decide(scores, LABELS, decision)
    expected = decide_expected(probabilities, 3, 2)
    assert (selected == expected).all(axis=1).mean() > 0.99, "except for images with equal expected F2"
    assert not np.array_equal(expected, decide_expected(scores, 3, 2))


def test_on_a_flat_curve_the_higher_score_ranks_first() -> None:
    flat = {"c": Calibration((0.2,), (0.5,)), "t": Calibration((0.3, 0.4), (0.5, 0.5))}
    scores = np.array([[0.30, 0.31, 0.29, 0.32, 0.28], [1e-4, 2e-4, 3e-4, 0, 5e-5], [0.9, 0.9, 0.9, 0.9, 0.9]])
    selected = decide(scores.astype(np.float16), LABELS, Decision({}, (10,), "expected_f", flat, maximum=2))
    assert selected.astype(int).tolist() == [[0, 1, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 0, 0, 0]]


def test_the_default_rule_is_thresholds() -> None:
    rules = {"c": GroupDecision(0.5, 0, 2), "t": GroupDecision(0.5, 0, 3)}
    curves = {"c": Calibration((0.0, 1.0), (0.0, 1.0)), "t": Calibration((0.0, 1.0), (0.0, 1.0))}
    scores = np.array([[0.6, 0.45, 0.0, 0.0, 0.0]])
    assert decide(scores, LABELS, Decision(rules, (10,), calibration=curves)).tolist() == [[True] + [False] * 4]
    by_expectation = decide(scores, LABELS, Decision(rules, (10,), "expected_f", curves))
    assert by_expectation.tolist() == [[True, True, False, False, False]]
