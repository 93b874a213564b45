import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score

from zoo.metrics.selection import choose_classes, compare_classes, pair_classes, score_kappa, select_top


def draw_answers(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw answers with ties, and one true class per image."""
    images, classes = random.integers(1, 12), random.integers(2, 6)
    answers = random.integers(0, 4, (images, classes)) / 4
    return answers, np.eye(classes, dtype=np.bool_)[random.integers(0, random.integers(1, classes + 1), images)]


def find_first_best(row: list[float]) -> int:
    """Return the first index of the highest number."""
    return row.index(max(row))


def test_accuracy_and_kappa_equal_slow_ones_in_1000_cases() -> None:
    random = np.random.default_rng(0)
    for _ in range(1000):
        answers, truth = draw_answers(random)
        chosen, true = ([find_first_best(row) for row in matrix.tolist()] for matrix in (answers, truth))
        right = sum(one == other for one, other in zip(chosen, true, strict=True)) / len(true)
        assert compare_classes(answers, truth).mean() == pytest.approx(right, abs=1e-12)
        found = sum((one - other) ** 2 for one, other in zip(chosen, true, strict=True)) / len(true)
        by_chance = sum((one - other) ** 2 for one in chosen for other in true) / len(true) ** 2
        kappa = 1 - found / by_chance if by_chance else 1
        assert score_kappa(pair_classes(answers, truth)) == pytest.approx(kappa, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_accuracy_and_kappa_equal_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    classes = random.integers(0, 5, (40, 2))
    classes[:20, 0] = classes[:20, 1]
    answers, truth = (np.eye(5)[column] for column in classes.T)
    assert compare_classes(answers, truth).mean() == accuracy_score(*classes.T)
    expected = cohen_kappa_score(*classes.T, weights="quadratic")
    assert score_kappa(pair_classes(answers, truth)) == pytest.approx(expected, abs=1e-12)


def test_kappa_of_cases_by_hand() -> None:
    assert score_kappa(np.array([[0, 0], [1, 1], [2, 2]])) == 1
    assert score_kappa(np.array([[2, 0], [1, 1], [0, 2]])) == pytest.approx(-1)
    assert score_kappa(np.array([[1, 0], [1, 1], [1, 2]])) == 0
    assert score_kappa(np.array([[3, 3], [3, 3]])) == 1


def test_one_column_is_the_probability_of_class_1() -> None:
    assert choose_classes(np.array([[0.4], [0.5], [0.9]])).tolist() == [0, 1, 1]


def test_the_highest_numbers_are_selected_and_equal_ones_in_label_order() -> None:
    answers = np.array([[0.1, 0.5, 0.5, 0.5], [0.9, 0.0, 0.2, 0.1]])
    assert select_top(answers, 2).tolist() == [[False, True, True, False], [True, False, True, False]]
    assert select_top(answers, 9).all()
