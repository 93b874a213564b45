import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, root_mean_squared_error

from zoo.metrics.values import SMALLEST, diverge, lose_class_logs, lose_logs, square_errors, take_root


def clip(value: float) -> float:
    """Return the probability as Kaggle takes its logarithm."""
    return min(max(value, SMALLEST), 1 - SMALLEST)


def draw_shares(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities and soft truth of a few images, with zeros and ones; the truth adds up to 1."""
    shape = random.integers(1, 5), random.integers(2, 6)
    answers = random.integers(0, 4, shape) / 3
    truth = random.integers(0, 3, shape).astype(np.float64)
    truth[:, 0] += truth.sum(axis=1) == 0
    return answers, truth / truth.sum(axis=1, keepdims=True)


def test_losses_of_shares_equal_slow_ones_in_1000_cases() -> None:
    random = np.random.default_rng(0)
    for _ in range(1000):
        answers, truth = draw_shares(random)
        losses, divergences = [], []
        for row, true in zip(answers.tolist(), truth.tolist(), strict=True):
            total = sum(row) or 1
            pairs = list(zip(row, true, strict=True))
            losses.append(-sum(share * math.log(clip(chance / total)) for chance, share in pairs))
            divergences.append(sum(share * math.log(share / clip(chance)) for chance, share in pairs if share))
        assert lose_class_logs(answers, truth).tolist() == pytest.approx(losses, abs=1e-9)
        assert diverge(answers, truth).tolist() == pytest.approx(divergences, abs=1e-9)


def test_log_loss_of_labels_and_rmse_equal_slow_ones_in_1000_cases() -> None:
    random = np.random.default_rng(1)
    for _ in range(1000):
        answers = random.integers(0, 4, (random.integers(1, 5), random.integers(1, 5))) / 3
        truth = random.random(answers.shape) < random.choice([0, 0.4, 1])
        losses, squares = [], []
        for row, true in zip(answers.tolist(), truth.tolist(), strict=True):
            pairs = list(zip(row, true, strict=True))
            losses.append(-sum(math.log(clip(one) if yes else 1 - clip(one)) for one, yes in pairs) / len(pairs))
            squares.append(sum((100 * one - 100 * yes) ** 2 for one, yes in pairs) / len(pairs))
        assert lose_logs(answers, truth).tolist() == pytest.approx(losses, rel=1e-9)
        found = square_errors(answers, truth, 100.0)
        assert found.tolist() == pytest.approx(squares, abs=1e-9)
        assert take_root(found) == pytest.approx(math.sqrt(sum(squares) / len(squares)), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_log_loss_and_rmse_equal_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    answers = random.dirichlet(np.ones(4), 30)
    classes = random.integers(0, 4, 30)
    expected = log_loss(classes, answers, labels=range(4))
    assert lose_class_logs(answers, np.eye(4, dtype=np.bool_)[classes]).mean() == pytest.approx(expected, abs=1e-12)
    truth = random.random((30, 4)) < 0.4
    columns = [log_loss(true, chance, labels=[False, True]) for true, chance in zip(truth.T, answers.T, strict=True)]
    assert lose_logs(answers, truth).mean() == pytest.approx(np.mean(columns), abs=1e-12)
    expected = root_mean_squared_error(truth[:, 0] * 5.0, answers[:, 0] * 5)
    assert take_root(square_errors(answers[:, :1], truth[:, :1], 5.0)) == pytest.approx(expected, abs=1e-12)


def test_values_of_cases_by_hand() -> None:
    sure = np.array([[0.0, 1.0]])
    assert lose_class_logs(sure, sure == 0).tolist() == [pytest.approx(15 * math.log(10))]
    assert lose_class_logs(2 * sure, sure == 1).tolist() == [pytest.approx(0, abs=1e-12)]
    assert lose_logs(np.array([[0.5]]), np.array([[True]])).tolist() == [math.log(2)]
    assert diverge(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])).tolist() == [math.log(2)]
    assert diverge(np.array([[0.25, 0.75]]), np.array([[0.25, 0.75]], np.float32)).tolist() == [0]
    assert np.isfinite(lose_class_logs(np.zeros((1, 2)), sure == 1)).all()
