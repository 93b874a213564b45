import itertools

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.manifest.labels import Labels
from inference.manifest.task import Metric, Task
from training.second_stage.blend_weights import fit_weights
from zoo.metrics.f_beta import THRESHOLDS

LABELS = Labels(tuple(range(9)), ("",) * 9, {"culture": (0, 2, 4), "tag": (1, 3, 5, 6, 7, 8)})


def draw_truth(images: int, seed: int) -> np.ndarray:
    truth = np.random.default_rng(seed).random((images, 9)) < 0.2
    truth[:, 0] |= ~truth.any(axis=1)
    return truth


def blur(truth: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Return scores that are a mix of the truth and noise."""
    random = np.random.default_rng(seed).random(truth.shape)
    return ((1 - noise) * truth * random**0.5 + noise * random).astype(np.float16)


def score_slowly(mixed: np.ndarray, truth: np.ndarray) -> float:
    """Return the best F2 of every tenth pair of thresholds, one per group."""
    best = 0.0
    for first, second in itertools.product(map(float, THRESHOLDS[::10]), repeat=2):
        taken = np.zeros_like(truth)
        for group, threshold in zip(LABELS.groups, (first, second), strict=True):
            columns = list(LABELS.columns(group))
            taken[:, columns] = mixed[:, columns] >= threshold
        hits = (taken & truth).sum(axis=1)
        best = max(best, float((5 * hits / (4 * truth.sum(axis=1) + taken.sum(axis=1))).mean()))
    return best


def mix(scores: dict[str, np.ndarray], weights: dict[str, dict[str, float]]) -> np.ndarray:
    mixed = np.zeros((len(next(iter(scores.values()))), 9), np.float32)
    for group, given in weights.items():
        columns = list(LABELS.columns(group))
        for name, weight in given.items():
            mixed[:, columns] += np.float32(weight) * scores[name][:, columns]
    return mixed


def test_weights_add_to_one_and_are_as_good_as_the_best_of_a_grid() -> None:
    truth = draw_truth(150, 0)
    scores = {"good": blur(truth, 0.5, 1), "fair": blur(truth, 0.6, 2)}
    covers = {group: list(scores) for group in LABELS.groups}
    weights = fit_weights(scores, covers, truth, LABELS, Task())
    for given in weights.values():
        assert sum(given.values()) == pytest.approx(1, abs=1e-3)
    grid = [
        score_slowly(mix(scores, {group: {"good": one, "fair": 1 - one} for group in covers}), truth)
        for one in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert score_slowly(mix(scores, weights), truth) >= max(grid) - 0.005


def test_a_part_of_noise_has_a_small_weight() -> None:
    truth = draw_truth(400, 3)
    noise = np.random.default_rng(4).random(truth.shape).astype(np.float16)
    scores = {"good": blur(truth, 0.4, 5), "noise": noise}
    weights = fit_weights(scores, {group: list(scores) for group in LABELS.groups}, truth, LABELS, Task())
    assert all(given["noise"] < 0.3 for given in weights.values())


def test_identical_parts_keep_equal_weights() -> None:
    truth = draw_truth(100, 6)
    same = blur(truth, 0.5, 7)
    weights = fit_weights(
        {"one": same, "two": same}, {group: ["one", "two"] for group in LABELS.groups}, truth, LABELS, Task()
    )
    assert weights == {group: {"one": 0.5, "two": 0.5} for group in LABELS.groups}


def test_a_group_has_weights_only_for_the_parts_that_cover_it() -> None:
    truth = draw_truth(100, 8)
    tags = blur(truth, 0.5, 9)
    tags[:, list(LABELS.columns("culture"))] = np.nan
    scores = {"all": blur(truth, 0.5, 10), "tags": tags}
    weights = fit_weights(scores, {"culture": ["all"], "tag": ["all", "tags"]}, truth, LABELS, Task())
    assert weights["culture"] == {"all": 1.0}
    assert set(weights["tag"]) == {"all", "tags"}


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_weights_for_all_pairs_or_for_labels_prefer_the_better_part(average: str) -> None:
    truth = draw_truth(300, 11)
    scores = {"good": blur(truth, 0.5, 12), "poor": blur(truth, 0.8, 13)}
    task = Task(metric=Metric(beta=1.0, average=average))  # type: ignore[arg-type]
    covers = {group: list(scores) for group in LABELS.groups}
    weights = fit_weights(scores, covers, truth, LABELS, task)
    assert all(given["good"] > 0.5 for given in weights.values())

    def measure(given: dict[str, dict[str, float]]) -> float:
        mixed = mix(scores, given)
        best = 0.0
        for threshold in THRESHOLDS[::8]:
            best = max(best, fbeta_score(truth, mixed >= threshold, beta=1, average=average, zero_division=0))
        return best

    assert measure(weights) > measure({group: {"good": 0.5, "poor": 0.5} for group in covers})


def test_parts_without_a_common_image_keep_equal_weights() -> None:
    truth = draw_truth(150, 14)
    scores = {"good": blur(truth, 0.4, 15), "fair": blur(truth, 0.6, 16), "poor": blur(truth, 0.8, 17)}
    for place, part in enumerate(scores.values()):
        part[np.arange(150) % 3 != place] = np.nan
    weights = fit_weights(scores, {group: list(scores) for group in LABELS.groups}, truth, LABELS, Task())
    for given in weights.values():
        assert given == pytest.approx(dict.fromkeys(scores, 1 / 3), abs=1e-3)


def test_common_images_decide_between_parts_of_which_one_has_few() -> None:
    truth = draw_truth(400, 18)
    noise = np.random.default_rng(19).random(truth.shape).astype(np.float16)
    scores = {"good": blur(truth, 0.4, 20), "noise": noise}
    noise[200:] = np.nan
    weights = fit_weights(scores, {group: list(scores) for group in LABELS.groups}, truth, LABELS, Task())
    assert all(given["noise"] < 0.3 for given in weights.values())
