import itertools

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.ensemble.decide import decide
from inference.ensemble.expected_f2 import CHUNK, bound_true, decide_expected, expect_f2, rank_likeliest
from inference.manifest.labels import Labels
from inference.manifest.records import Calibration, Decision, GroupDecision

LABELS = Labels((10, 11, 12, 20, 21), ("c::a", "t::b", "c::d", "t::e", "t::f"), {"c": (0, 2), "t": (1, 3, 4)})


def list_sets(size: int) -> np.ndarray:
    """Every set of `size` labels, (sets, labels)."""
    return np.array(list(itertools.product((0, 1), repeat=size)))


def expect_all_sets(chances: np.ndarray) -> np.ndarray:
    """Expected F2 of taking each set of list_sets, from precision and recall in every outcome."""
    sets = list_sets(len(chances))
    hits = sets @ sets.T  # (taken, true)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / sets.sum(axis=1)[:, None], hits / sets.sum(axis=1)[None, :]
        f2 = np.where(hits > 0, 5 * precision * recall / (4 * precision + recall), 0)
    return f2 @ np.where(sets, chances, 1 - chances).prod(axis=1)


def draw_chances(random: np.random.Generator, size: int) -> np.ndarray:
    """Even, mostly small, mostly large, in steps (so with ties), or with some that are certain."""
    kind = random.integers(5)
    if kind == 3:
        return random.integers(0, 6, size) / 5
    chances = random.beta(*((1, 1), (0.4, 3), (3, 0.4), (1, 1), (1, 2))[kind], size)
    return np.where(random.random(size) < 0.3, random.integers(0, 2, size), chances) if kind == 4 else chances


def convolve_f2(chances: np.ndarray, most: int) -> np.ndarray:
    """Expected F2 of the likeliest 1, 2, ... `most` labels of one image, from whole distributions by convolution."""
    chances = np.sort(chances)[::-1]
    expected = []
    for taken in range(1, most + 1):
        hits, misses = count_by_convolution(chances[:taken]), count_by_convolution(chances[taken:])
        right, missed = np.arange(len(hits))[:, None], np.arange(len(misses))[None, :]
        expected.append(float((np.outer(hits, misses) * 5 * right / (taken + 4 * (right + missed))).sum()))
    return np.array(expected)


def count_by_convolution(chances: np.ndarray) -> np.ndarray:
    """The distribution of how many labels are true."""
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, (1 - chance, chance))
    return distribution


def test_a_thousand_decisions_agree_with_every_set_under_every_outcome() -> None:
    random = np.random.default_rng(0)
    for case in range(1000):
        size = int(random.integers(1, 9))
        chances = draw_chances(random, size)
        maximum = size if case % 2 else int(random.integers(1, size + 1))
        sets, expected = list_sets(size), expect_all_sets(chances)
        allowed = (sets.sum(axis=1) >= 1) & (sets.sum(axis=1) <= maximum)
        best = expected[allowed].max()
        taken = decide_expected(chances[None], maximum)[0]
        found = expected[(sets == taken).all(axis=1)][0]
        assert 1 <= taken.sum() <= maximum
        assert found == pytest.approx(best, abs=1e-12)
        assert taken.sum() == sets[allowed & (expected > best - 1e-11)].sum(axis=1).min(), "the fewest of equal sets"


@pytest.mark.parametrize("low, high, size", [(0.6, 0.98, 45), (0.0, 1.0, 60), (0.1, 0.3, 200), (0.0, 0.02, 300)])
def test_expectations_agree_with_whole_distributions_however_many_labels_are_true(
    low: float, high: float, size: int
) -> None:
    random = np.random.default_rng(1)
    chances = random.uniform(low, high, (3, size))
    chances[0] /= 4  # the others set how far is counted
    expected = expect_f2(chances, rank_likeliest(chances, 40))
    for image, row in enumerate(chances):
        assert expected[:, image] == pytest.approx(convolve_f2(row, 40), abs=2e-8)


def test_more_true_labels_than_are_counted_are_as_good_as_impossible() -> None:
    random = np.random.default_rng(2)
    cut = 0
    for size in (1, 5, 40, 150, 400):
        for most in (1e-4, 0.02, 0.1, 0.5, 1.0):
            chances = random.uniform(0, most, (1, size))
            bound = bound_true(chances)
            assert count_by_convolution(chances[0])[bound + 1 :].sum() < 2e-8
            cut += bound < size
    assert cut > 10, "where nothing is cut nothing is shown"


def test_every_image_has_a_label_and_no_image_changes_another() -> None:
    random = np.random.default_rng(3)
    chances = random.beta(0.2, 2, (2 * CHUNK + 7, 30)).astype(np.float32)
    chances[::5] = 0
    taken = decide_expected(chances, 6)
    assert taken.any(axis=1).all()
    assert taken.sum(axis=1).max() == 6
    assert taken.dtype == np.bool_
    alone = [decide_expected(row[None], 6)[0] for row in chances]
    assert np.array_equal(taken, alone)
    assert decide_expected(chances[:0], 6).shape == (0, 30)


def test_certain_labels_are_taken_and_impossible_ones_are_not() -> None:
    chances = np.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1e-9, 0, 0]])
    expected = [[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]]
    assert decide_expected(chances, 15).astype(int).tolist() == expected


def test_equal_chances_rank_in_label_order() -> None:
    chances = np.array([[0.2, 0.5, 0.5, 0.2, 0.5, 0.5], [0.9] * 6])
    assert rank_likeliest(chances, 6).tolist() == [[1, 2, 4, 5, 0, 3], [0, 1, 2, 3, 4, 5]]
    assert decide_expected(chances, 2).astype(int).tolist() == [[0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


def test_what_is_taken_is_likelier_than_what_is_not_and_a_larger_maximum_is_never_worse() -> None:
    random = np.random.default_rng(4)
    chances = random.beta(0.3, 2, (200, 25))
    before = np.zeros(200)
    for maximum in (1, 2, 4, 8, 25):
        taken = decide_expected(chances, maximum)
        assert (np.where(taken, chances, 2).min(axis=1) >= np.where(taken, -1, chances).max(axis=1)).all()
        counts = taken.sum(axis=1)
        value = expect_f2(chances, rank_likeliest(chances, 25))[counts - 1, np.arange(200)]
        assert (value >= before - 1e-12).all()
        before = value


def test_drawn_truth_scores_as_expected_and_no_threshold_beats_it() -> None:
    random = np.random.default_rng(5)
    chances = np.repeat(random.beta(0.3, 2, (100, 20)), 100, axis=0)
    truth = random.random(chances.shape) < chances

    def score(taken: np.ndarray) -> float:
        return float(fbeta_score(truth, taken, beta=2, average="samples", zero_division=0))

    taken = decide_expected(chances, 20)
    expected = expect_f2(chances, rank_likeliest(chances, 20)).max(axis=0)
    found = score(taken)
    assert found == pytest.approx(expected.mean(), abs=0.01)
    assert found > max(score(chances >= threshold) for threshold in np.arange(0.02, 0.6, 0.04))


def test_the_rule_expected_f2_decides_by_each_groups_own_curve() -> None:
    curves = {"c": Calibration((0.1, 0.6), (0.0, 0.9)), "t": Calibration((0.0, 0.5, 1.0), (0.01, 0.02, 0.3))}
    decision = Decision({}, (10,), "expected_f2", curves, maximum=3)
    scores = np.random.default_rng(6).random((500, 5)).astype(np.float32)
    chances = np.empty(scores.shape)
    for image, label in np.ndindex(*scores.shape):
        score = float(scores[image, label])
        if label in LABELS.groups["c"]:
            chances[image, label] = min(max((score - 0.1) / 0.5, 0), 1) * 0.9
        else:
            chances[image, label] = 0.01 + 0.02 * score if score < 0.5 else 0.02 + 0.56 * (score - 0.5)
    taken = decide(scores, LABELS, decision)
    expected = decide_expected(chances, 3)
    assert (taken == expected).all(axis=1).mean() > 0.99, "but for images on the edge"
    assert not np.array_equal(expected, decide_expected(scores, 3))


def test_where_a_curve_is_flat_the_higher_score_goes_first() -> None:
    flat = {"c": Calibration((0.2,), (0.5,)), "t": Calibration((0.3, 0.4), (0.5, 0.5))}
    scores = np.array([[0.30, 0.31, 0.29, 0.32, 0.28], [1e-4, 2e-4, 3e-4, 0, 5e-5], [0.9, 0.9, 0.9, 0.9, 0.9]])
    taken = decide(scores.astype(np.float16), LABELS, Decision({}, (10,), "expected_f2", flat, maximum=2))
    assert taken.astype(int).tolist() == [[0, 1, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 0, 0, 0]]


def test_thresholds_decide_unless_the_manifest_says_otherwise() -> None:
    rules = {"c": GroupDecision(0.5, 0, 2), "t": GroupDecision(0.5, 0, 3)}
    curves = {"c": Calibration((0.0, 1.0), (0.0, 1.0)), "t": Calibration((0.0, 1.0), (0.0, 1.0))}
    scores = np.array([[0.6, 0.45, 0.0, 0.0, 0.0]])
    assert decide(scores, LABELS, Decision(rules, (10,), calibration=curves)).tolist() == [[True] + [False] * 4]
    by_expectation = decide(scores, LABELS, Decision(rules, (10,), "expected_f2", curves))
    assert by_expectation.tolist() == [[True, True, False, False, False]]
