import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.ensemble.decide import decide
from inference.manifest.decision import Decision, GroupDecision
from inference.manifest.labels import Labels
from training.scoring.thresholds import GroupRule, apply_rule, declare_rules, fit_decision, rank_groups
from zoo.metrics.f_beta import THRESHOLDS


def make_labels(**sizes: int) -> Labels:
    """Return groups of the given sizes, in consecutive columns."""
    bounds = np.cumsum([0, *sizes.values()])
    groups = {group: tuple(range(bounds[place], bounds[place + 1])) for place, group in enumerate(sizes)}
    return Labels(tuple(range(bounds[-1])), tuple(map(str, range(bounds[-1]))), groups)


def draw_case(seed: int, images: int, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores from 0.05 to 0.95 in steps of 0.1, many of them equal, and truth."""
    random = np.random.default_rng(seed)
    truth = random.random((images, len(labels.ids))) < 0.3
    scores = np.clip(0.3 * truth + 0.7 * random.random(truth.shape), 0, 0.99)
    return (np.floor(scores * 10) / 10 + 0.05).astype(np.float32), truth


def score_slowly(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Compute mean F2 from precision and recall, image by image."""
    total = 0.0
    for row, true in zip(predicted, truth, strict=True):
        hits = int((row & true).sum())
        if hits:
            precision, recall = hits / int(row.sum()), hits / int(true.sum())
            total += 5 * precision * recall / (4 * precision + recall)
    return total / len(truth)


def list_rules(size: int, thresholds: Iterable[float]) -> list[GroupDecision]:
    """List every rule that the search tries for a group of at most six labels."""
    return [
        GroupDecision(threshold, minimum, maximum)
        for threshold in thresholds
        for minimum in range(min(2, size) + 1)
        for maximum in range(max(minimum, 1), size + 1)
    ]


@pytest.mark.parametrize("seed", range(2))
def test_a_single_group_gets_the_best_of_all_rules(seed: int) -> None:
    labels = make_labels(tag=5)
    scores, truth = draw_case(seed, 8, labels)
    best = max(
        score_slowly(decide(scores, labels, Decision({"tag": rule}, ())), truth)
        for rule in list_rules(5, map(float, THRESHOLDS))
    )
    assert fit_decision(scores, truth, labels, 2.0).figures[-1] == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_two_groups_get_the_best_pair_of_rules_in_these_cases(seed: int) -> None:
    # In general, a coordinate search may end at a worse pair.
    labels = make_labels(culture=2, tag=3)
    scores, truth = draw_case(seed, 6, labels)
    steps = [0.005, *(round(0.1 * step, 1) for step in range(1, 10)), 0.995]  # every way to separate these scores
    best = max(
        score_slowly(decide(scores, labels, Decision({"culture": first, "tag": second}, ())), truth)
        for first, second in itertools.product(list_rules(2, steps), list_rules(3, steps))
    )
    assert fit_decision(scores, truth, labels, 2.0).figures[-1] == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_no_stage_is_worse_than_the_one_before_or_the_best_threshold(seed: int) -> None:
    labels = make_labels(culture=6, tag=20)
    random = np.random.default_rng(seed)
    truth = random.random((200, 26)) < 0.1
    scores = np.clip(0.2 * truth + random.random(truth.shape) ** 3, 0, 1).astype(np.float32)
    single, apart, counted = fit_decision(scores, truth, labels, 2.0).figures
    plain = max(
        fbeta_score(truth, scores >= threshold, beta=2, average="samples", zero_division=0)
        for threshold in map(float, THRESHOLDS[::4])
    )
    assert plain - 1e-12 <= single <= apart + 1e-12 <= counted + 2e-12


def test_the_f2_equals_that_of_the_kernels_decision() -> None:
    labels = make_labels(culture=6, tag=20)
    random = np.random.default_rng(0)
    truth = random.random((100, 26)) < 0.1
    scores = np.clip(0.2 * truth + random.random(truth.shape) ** 3, 0, 1).astype(np.float32)
    fitted = fit_decision(scores, truth, labels, 2.0)
    predicted = decide(scores, labels, Decision(fitted.groups, ()))
    expected = fbeta_score(truth, predicted, beta=2, average="samples", zero_division=0)
    assert fitted.figures[-1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_search_agrees_with_the_kernel_on_equal_scores_and_images_without_labels(seed: int) -> None:
    labels = make_labels(culture=20, tag=40)
    scores, truth = draw_case(seed, 30, labels)
    scores[:10] = np.minimum(scores[:10], 0.55)
    random = np.random.default_rng(seed)
    for _ in range(20):
        rules = {group: GroupRule(int(random.integers(90, 199)), int(random.integers(2)), 3) for group in labels.groups}
        evidence = rank_groups(scores, truth, labels, 2.0)
        counts = [apply_rule(ranked, rules[group]) for group, ranked in evidence.groups.items()]
        expected = score_slowly(decide(scores, labels, Decision(declare_rules(rules), ())), truth)
        assert evidence.score(counts[0] + counts[1])[0] == pytest.approx(expected, abs=1e-12)


def test_limits_without_effect_are_not_set() -> None:
    labels = make_labels(culture=2, tag=3)
    truth = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 1, 1]], np.bool_)
    fitted = fit_decision(np.where(truth, 0.9, 0.1).astype(np.float32), truth, labels, 2.0)
    assert fitted.figures == (1.0, 1.0, 1.0)
    assert fitted.groups == {"culture": GroupDecision(0.105, 0, 2), "tag": GroupDecision(0.105, 0, 3)}


def test_a_group_best_left_without_labels_does_not_stop_the_search() -> None:
    labels = make_labels(culture=2, tag=2)
    truth = np.array([[0, 0, 1, 0], [0, 0, 0, 1]], np.bool_)
    scores = np.array([[0.9, 0.9, 0.1, 0.0], [0.9, 0.9, 0.0, 0.1]], np.float32)
    fitted = fit_decision(scores, truth, labels, 2.0)
    assert fitted.figures[-1] == 1.0
    assert fitted.groups["culture"].threshold > 0.9


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_micro_f_beta_gets_the_best_of_all_rules(beta: float) -> None:
    labels = make_labels(tag=5)
    scores, truth = draw_case(int(2 * beta), 12, labels)
    found = fit_decision(scores, truth, labels, beta, "micro")
    best = 0.0
    for rule in list_rules(5, [0.005, *(round(0.1 * step, 1) for step in range(1, 10)), 0.995]):
        predicted = decide(scores, labels, Decision({"tag": rule}, ()))
        hits = (predicted & truth).sum()
        best = max(best, (1 + beta**2) * hits / (beta**2 * truth.sum() + predicted.sum()))
    assert found.figures[-1] == pytest.approx(best, abs=1e-12)
    predicted = decide(scores, labels, Decision(found.groups, ()))
    assert found.figures[-1] == pytest.approx(fbeta_score(truth, predicted, beta=beta, average="micro"), abs=1e-12)


def test_counts_of_many_labels_do_not_overflow() -> None:
    labels = make_labels(tag=9000)
    truth = np.zeros((2, 9000), np.bool_)
    truth[0] = True
    fitted = fit_decision(np.where(truth, 0.9, 0.1).astype(np.float32), truth, labels, 2.0)
    assert fitted.figures == (0.5, 0.5, 0.5)  # the other image has no label to find
