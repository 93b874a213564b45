import itertools

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, roc_auc_score

from zoo.metrics.ranking import average_precisions, rank_images, score_areas


def score_list_slowly(predicted: list[int], true: list[int], k: int) -> float:
    """Compute the average precision at k as Kaggle's reference does, from a list of labels, best first."""
    score, hits = 0.0, 0
    for place, label in enumerate(predicted[:k]):
        if label in true and label not in predicted[:place]:
            hits += 1
            score += hits / (place + 1)
    return score / min(len(true), k) if true else 0.0


def score_area_slowly(scores: list[float], truth: list[bool]) -> float | None:
    """Compute the area under the ROC curve from all pairs."""
    pairs = list(
        itertools.product(itertools.compress(scores, truth), itertools.compress(scores, np.logical_not(truth)))
    )
    wins = [1.0 if one > other else 0.5 if one == other else 0.0 for one, other in pairs]
    return sum(wins) / len(wins) if wins else None


def test_map_equals_a_slow_one_in_1000_cases() -> None:
    random = np.random.default_rng(0)
    for _ in range(1000):
        images, labels, k = random.integers(1, 5), random.integers(1, 8), int(random.integers(1, 7))
        answers = random.integers(0, 5, (images, labels)) / 4
        answers[random.random(answers.shape) < 0.1] = -np.inf
        truth = random.random(answers.shape) < random.choice([0, 0.2, 0.6])
        expected = []
        for row, true in zip(answers.tolist(), truth, strict=True):
            given = [label for label in range(labels) if row[label] > -np.inf]
            ranked = sorted(given, key=lambda label, row=row: -row[label])  # stable
            expected.append(score_list_slowly(ranked, np.flatnonzero(true).tolist(), k))
        assert average_precisions(answers, truth, k).tolist() == pytest.approx(expected, abs=1e-12)


def test_map_over_all_labels_equals_scikit_learns_label_ranking() -> None:
    random = np.random.default_rng(1)
    answers, truth = random.permuted(np.tile(np.arange(9.0), (50, 1)), axis=1), random.random((50, 9)) < 0.3
    truth[:, 0] |= ~truth.any(axis=1)
    expected = label_ranking_average_precision_score(truth, answers)
    assert average_precisions(answers, truth, 9).mean() == pytest.approx(expected, abs=1e-12)


def test_map_of_cases_by_hand() -> None:
    answers = np.array([[5.0, 4, 3, 2, 1]])
    for true, expected in (
        ([0], 1),
        ([1], 1 / 2),
        ([4], 1 / 5),
        ([0, 2], (1 + 2 / 3) / 2),
        ([3, 4], (1 / 4 + 2 / 5) / 2),
    ):
        assert average_precisions(answers, np.isin(np.arange(5), true)[None], 5) == pytest.approx(expected)
    assert average_precisions(answers, np.array([[False, True, True, True, True]]), 2).tolist() == [1 / 4]


def test_the_area_equals_a_slow_one_in_1000_cases() -> None:
    random = np.random.default_rng(2)
    for _ in range(1000):
        shape = random.integers(1, 10), random.integers(1, 4)
        scores = random.integers(0, 5, shape).astype(np.float32) / 4
        truth = random.random(shape) < random.choice([0, 0.3, 0.5, 1])
        areas = [score_area_slowly(*columns) for columns in zip(scores.T.tolist(), truth.T.tolist(), strict=True)]
        kept = [area for area in areas if area is not None]
        expected = sum(kept) / len(kept) if kept else np.nan
        assert score_areas(rank_images(scores, truth)) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_area_equals_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.random((60, 4)) < 0.3
    scores = np.round(0.2 * truth + random.random(truth.shape), 1)
    assert score_areas(rank_images(scores, truth)) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_a_resample_of_images_needs_no_new_ranks() -> None:
    random = np.random.default_rng(3)
    scores, truth = random.random((40, 3)).round(1), random.random((40, 3)) < 0.4
    drawn = random.integers(40, size=40)
    again = score_areas(rank_images(scores[drawn], truth[drawn]))
    assert score_areas(rank_images(scores, truth)[drawn]) == pytest.approx(again, abs=1e-12)
