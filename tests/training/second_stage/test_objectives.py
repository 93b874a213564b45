"""Each objective against scikit-learn, or a slow computation, on the weighted scores of all labels."""

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, log_loss, roc_auc_score

from tests.training.second_stage.drawn import TASKS, draw_members
from training.second_stage import objectives
from training.second_stage.objectives import GRID, TEMPERATURES, fill_unknown, make_objective, mix_scores

IMAGES = 150


def mean_precision(mixed: np.ndarray, truth: np.ndarray) -> float:
    ranks = (mixed > mixed[truth][:, None]).sum(axis=1)
    return float(np.where(ranks < 3, 1 / (1 + ranks), 0).mean())


def best_kappa(mixed: np.ndarray, truth: np.ndarray) -> float:
    rounded = np.rint(mixed @ np.arange(5)).astype(int)
    found = [
        cohen_kappa_score(truth.argmax(axis=1), one, weights="quadratic") for one in (rounded, mixed.argmax(axis=1))
    ]
    return max(found)


def best_thresholds(mixed: np.ndarray, truth: np.ndarray) -> float:
    best = []
    for column in range(5):
        found = [mixed[:, column] >= np.float32(threshold) for threshold in GRID]
        true = truth[:, column]
        best.append(max(2 * (one & true).sum() / (one.sum() + true.sum()) for one in found))
    return float(np.mean(best))


def line_error(mixed: np.ndarray, truth: np.ndarray) -> float:
    found, values = mixed[:, 0].astype(float), truth[:, 0].astype(float)
    line = np.polyfit(found, values, 1)
    # Unbiased, as numpy's covariance; the same for all weights.
    return -float(np.sqrt(((np.polyval(line, found) - values) ** 2).sum() / (len(values) - 1)))


def heat_classes(mixed: np.ndarray) -> list[np.ndarray]:
    """Return the probabilities of classes at each temperature, at least half an image of all images and classes."""
    heated = [softmax(np.log(mixed.astype(float)) / temperature, axis=1) for temperature in TEMPERATURES]
    bounded = [np.maximum(one, 0.5 / (len(mixed) + 1) / mixed.shape[1]) for one in heated]
    return [one / one.sum(axis=1, keepdims=True) for one in bounded]


def heat_single(mixed: np.ndarray) -> list[np.ndarray]:
    """Return the probabilities of one label at each temperature, half an image of all images from 0 and 1."""
    edge = 0.5 / (len(mixed) + 1)
    return [expit(logit(mixed.astype(float)) / temperature).clip(edge, 1 - edge) for temperature in TEMPERATURES]


SLOW = {
    "accuracy": lambda mixed, truth: accuracy_score(truth.argmax(axis=1), mixed.argmax(axis=1)),
    "macro F1": lambda mixed, truth: f1_score(truth.argmax(axis=1), mixed.argmax(axis=1), average="macro"),
    "kappa": best_kappa,
    "MAP": mean_precision,
    "macro F1 of sets": best_thresholds,
    "ROC AUC": lambda mixed, truth: roc_auc_score(truth, mixed, average="macro"),
    "ROC AUC of one": lambda mixed, truth: roc_auc_score(truth[:, 0], mixed[:, 0]),
    "log loss": lambda mixed, truth: max(-log_loss(truth.argmax(axis=1), one) for one in heat_classes(mixed)),
    "log loss of one": lambda mixed, truth: max(-log_loss(truth[:, 0], one) for one in heat_single(mixed[:, 0])),
    "KL divergence": lambda mixed, truth: max((truth * np.log(one)).sum(axis=1).mean() for one in heat_classes(mixed)),
    "RMSE": line_error,
}


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("weights", [(0.2, 0.5, 0.3), (0.6, 0.4, 0.0)])
def test_an_objective_is_the_metric_of_the_weighted_scores(name: str, weights: tuple[float, ...]) -> None:
    members = draw_members(TASKS[name], IMAGES, seed=3)
    scores = members.scores.transpose(1, 0, 2).astype(np.float32)
    mixed = np.tensordot(np.array(weights, np.float32), scores, axes=1)
    found = make_objective(TASKS[name], scores, members.truth)(np.array(weights))
    assert found == pytest.approx(SLOW[name](mixed, members.truth), abs=1e-5)


def average_known(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the parts that are not NaN, image by image; of weight 0 where no other is there."""
    mixed = np.empty(scores.shape[1:])
    for image in range(len(mixed)):
        there = [part for part in range(len(scores)) if not np.isnan(scores[part, image, 0])]
        given = [float(weights[part]) for part in there]
        given = given if sum(given) else [1.0] * len(there)
        mixed[image] = np.average(scores[there, image].astype(float), axis=0, weights=given)
    return mixed.astype(np.float32)


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("weights", [(0.2, 0.5, 0.3), (0.6, 0.4, 0.0)])
def test_an_image_has_the_weighted_mean_of_the_parts_that_held_it_out(name: str, weights: tuple[float, ...]) -> None:
    members = draw_members(TASKS[name], IMAGES, seed=3)
    scores = members.scores.transpose(1, 0, 2).astype(np.float32)
    scores[0, :60] = np.nan
    scores[1, 40:90] = np.nan  # only the last part, of weight 0 once, has images 40 to 59
    mixed = average_known(scores, np.array(weights))
    found = make_objective(TASKS[name], scores, members.truth)(np.array(weights))
    assert found == pytest.approx(SLOW[name](mixed, members.truth), abs=1e-4)
    filled, known = fill_unknown(scores)
    np.testing.assert_allclose(mix_scores(filled, np.array(weights), known), mixed, atol=1e-6)


def test_the_scores_of_a_single_part_are_not_rounded() -> None:
    scores = np.random.default_rng(5).random((3, 3000, 2)).astype(np.float16).astype(np.float32)
    alone = np.random.default_rng(6).integers(0, 3, 3000)
    for part in range(3):
        scores[part, alone != part] = np.nan
    filled, known = fill_unknown(scores)
    for weights in ((1 / 3, 1 / 3, 1 / 3), (0.07, 0.9, 0.03)):
        assert np.array_equal(mix_scores(filled, np.array(weights), known), scores[alone, np.arange(3000)])


def test_few_evenly_spaced_pairs_measure_an_area_well(monkeypatch: pytest.MonkeyPatch) -> None:
    members = draw_members(TASKS["ROC AUC"], 4000, seed=4)
    scores, weights = members.scores.transpose(1, 0, 2), np.array([0.5, 0.3, 0.2])
    whole = make_objective(TASKS["ROC AUC"], scores, members.truth)(weights)
    monkeypatch.setattr(objectives, "MOST_PAIRS", 4000)
    part = make_objective(TASKS["ROC AUC"], scores, members.truth)(weights)
    assert part != whole
    assert part == pytest.approx(whole, abs=0.02)


def test_equal_scores_count_half_in_an_area() -> None:
    truth = np.array([[True], [False], [True], [False]])
    scores = np.array([[[0.5], [0.5], [0.75], [0.25]]], np.float32)
    assert make_objective(TASKS["ROC AUC of one"], scores, truth)(np.ones(1)) == (0.5 + 1 + 1 + 1) / 4


def test_a_label_without_true_images_has_no_area() -> None:
    truth = np.zeros((4, 5), np.bool_)
    scores = np.random.default_rng(0).random((2, 4, 5)).astype(np.float32)
    assert make_objective(TASKS["ROC AUC"], scores, truth)(np.array([0.5, 0.5])) == 0
    truth[0, 1] = True
    scores[:, 0, 1] = 1
    assert make_objective(TASKS["ROC AUC"], scores, truth)(np.array([0.5, 0.5])) == 1
