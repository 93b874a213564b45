"""The figures of a fit, for the terminal, for JSON and for the page."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from inference.manifest.decision import Decision
from inference.manifest.labels import Labels
from inference.manifest.records import BLEND
from inference.manifest.task import Metric, Task
from training.scoring.bootstrap import bootstrap_difference
from training.scoring.label_thresholds import count_images
from training.scoring.rules import list_rules
from training.second_stage.calibration import Reliability, measure_reliability
from training.second_stage.fitted import Weights
from training.second_stage.inputs.coverage import MemberInput
from training.second_stage.judge import Nested, Pool, list_all_rules, name_base, name_expected
from zoo.metrics.f_beta import THRESHOLDS, count_above, score_counts, score_samples
from zoo.metrics.scoring import harden_truth
from zoo.metrics.selection import Truth, choose_classes

# Images per label: bounds of the slices.
FREQUENCIES = (20, 100, 1000)
MOST_CONFUSED = 12
SHARES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Judged:
    """A method or a rule, compared with a reference on the same images."""

    name: str
    score: float
    """The metric."""
    gain: float
    """By how much it is better than the reference; `low` to `high`: the 95 % interval."""
    low: float
    high: float


@dataclass(frozen=True)
class ThresholdCurve:
    """F-beta of one group's labels by threshold, for the final scores."""

    thresholds: tuple[float, ...]
    scores: tuple[float, ...]
    """At each threshold; for F-beta of samples, on the images with a label of the group."""
    chosen: float
    """The threshold of the manifest."""


@dataclass(frozen=True)
class FrequencySlice:
    """Labels of similar frequency."""

    name: str
    labels: int
    scores: Mapping[str, float]
    """By method, F-beta over all pairs of an image and one of these labels."""


@dataclass(frozen=True)
class Confused:
    """Images of one class that were taken for another."""

    true: str
    answer: str
    images: int
    share: float
    """Of the images of the true class."""


@dataclass(frozen=True)
class Findings:
    """All figures of a fit, in the order of second_stage.json; a section that does not suit the task is None."""

    images: int
    folds: int
    metric: str
    """Its title, as in F2."""
    higher_is_better: bool
    is_mean: bool
    """The metric is a mean over images."""
    members: tuple[MemberInput, ...]
    method: str
    """The chosen one of `methods`: the mix, the blend or the rank mean."""
    rule: str
    """The one of `rules` with the best metric."""
    richest: str
    """The rule by which methods are compared; `base`: the one that rules are compared with."""
    base: str
    expected: str | None
    """The rule of the highest expected F-beta."""
    methods: tuple[Judged, ...]
    """Compared with the weighted average."""
    rules: tuple[Judged, ...]
    """Applied to `method`."""
    left_out: Mapping[str, str]
    """Why a stacker was not fitted, by part."""
    weights: Weights
    mix: Weights
    values: Mapping[str, float]
    """By member, by how much the metric is worse without it."""
    thresholds: Mapping[str, ThresholdCurve] | None
    """By group."""
    reliability: Mapping[str, Reliability] | None
    """Of the probabilities, by group."""
    slices: tuple[FrequencySlice, ...] | None
    slice_metric: str
    """As in F2."""
    confused: tuple[Confused, ...] | None
    """The most frequent pairs of a true and another class, for one class per image."""
    errors: Mapping[str, float] | None
    """Of numbers, in the competition's units."""
    parity: Mapping[str, float]
    """By stacker, the largest difference of the ONNX file's scores."""


def judge_all(nested: Nested, task: Task) -> tuple[Judged, ...]:
    """Compare all methods with the weighted average, by the richest rule."""
    richest = list_rules(task)[-1]
    base = nested.pools[BLEND, richest]
    return tuple(compare_pools(method, pool, base) for (method, rule), pool in nested.pools.items() if rule == richest)


def judge_rules(nested: Nested, method: str, task: Task) -> tuple[Judged, ...]:
    """Compare all rules of a method with the base rule."""
    base = nested.pools[method, name_base(task)]
    return tuple(compare_pools(rule, nested.pools[method, rule], base) for rule in list_all_rules(task))


def compare_pools(name: str, pool: Pool, other: Pool) -> Judged:
    """Compare the answers to the same images, with a paired bootstrap interval of the difference."""
    one, two = (found.summarise() for found in (pool, other))
    return Judged(name, pool.scoring.total(one), *bootstrap_difference(pool.scoring, one, two, seed=0))


def measure_thresholds(
    scores: NDArray[np.float32], truth: Truth, labels: Labels, task: Task, decision: Decision
) -> dict[str, ThresholdCurve] | None:
    """Measure the curve of each group; None if the task has no thresholds.

    `scores`, `truth`: (images, labels), from the outer folds; `decision`: of the manifest.
    """
    if not task.selects_labels:
        return None
    true = harden_truth(truth, task)
    curves = {}
    for group, columns in labels.groups.items():
        places = list(columns)
        found = score_thresholds(scores[:, places], true[:, places], task.metric)
        chosen = decision.groups[group].threshold
        curves[group] = ThresholdCurve(tuple(map(float, THRESHOLDS)), tuple(map(float, found)), chosen)
    return curves


def score_thresholds(scores: NDArray[np.float32], truth: NDArray[np.bool_], metric: Metric) -> NDArray[np.float64]:
    """Return F-beta of a group's labels at each of THRESHOLDS; `scores`, `truth`: (images, labels of the group)."""
    if metric.average == "macro":
        means: NDArray[np.float64] = count_images(scores, truth).score(metric.beta).mean(axis=0)
        return means
    if metric.average == "samples":
        rows = np.flatnonzero(truth.any(axis=1))
        scores, truth = scores[rows], truth[rows]
    hits, predicted = count_above(np.where(truth, scores, np.float32(-1))), count_above(scores)
    true = truth.sum(axis=1, keepdims=True)
    if metric.average == "micro":
        return score_counts(hits.sum(axis=0), predicted.sum(axis=0), true.sum(axis=0), metric.beta)
    means = score_counts(hits, predicted, true, metric.beta).mean(axis=0)
    return means


def measure_groups(
    values: NDArray[np.float32], truth: Truth, labels: Labels, task: Task
) -> dict[str, Reliability] | None:
    """Measure the reliability of each group's probabilities, `Nested.values`; None if the task has none.

    Of tasks whose metric judges only an order, scores need not be probabilities.
    """
    if not (name_expected(task) or task.metric.name in ("log_loss", "kl_divergence")):
        return None
    places = {group: list(columns) for group, columns in labels.groups.items()}
    return {group: measure_reliability(values[:, own], truth[:, own]) for group, own in places.items()}


def slice_by_frequency(
    selected: Mapping[str, NDArray[np.bool_]], truth: NDArray[np.bool_], beta: float
) -> tuple[FrequencySlice, ...]:
    """Score labels of similar frequency; `selected`, by method, and `truth`: (images, labels)."""
    counts = truth.sum(axis=0)
    bounds = (1, *FREQUENCIES, np.inf)
    names = (
        f"fewer than {FREQUENCIES[0]}",
        *(f"{low} to {high - 1}" for low, high in pairwise(FREQUENCIES)),
        f"{FREQUENCIES[-1]} or more",
    )
    slices = []
    for name, (low, high) in zip(names, pairwise(bounds), strict=True):
        columns = np.flatnonzero((counts >= low) & (counts < high))
        if len(columns):
            found = {
                method: score_label_pairs(part[:, columns], truth[:, columns], beta)
                for method, part in selected.items()
            }
            slices.append(FrequencySlice(name, len(columns), found))
    return tuple(slices)


def score_label_pairs(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], beta: float) -> float:
    """Return F-beta of all pairs of image and label together, as scikit-learn's average="micro"."""
    one = score_samples(predicted.reshape(1, -1), truth.reshape(1, -1), beta)
    return float(one[0])


def find_confused(selected: NDArray[np.bool_], truth: Truth, labels: Labels) -> tuple[Confused, ...]:
    """Return the MOST_CONFUSED most frequent pairs of a true class and another answer, the most frequent first.

    `selected`, `truth`: (images, labels), one class per image.
    """
    size = len(labels.ids)
    classes, answers = choose_classes(truth), choose_classes(selected)
    wrong = classes != answers
    pairs, counts = np.unique(classes[wrong] * size + answers[wrong], return_counts=True)
    frequencies = np.bincount(classes, minlength=size)
    order = np.argsort(-counts, kind="stable")[:MOST_CONFUSED]
    return tuple(
        Confused(labels.names[true], labels.names[answer], int(count), float(count / frequencies[true]))
        for true, answer, count in zip(pairs[order] // size, pairs[order] % size, counts[order], strict=True)
    )


def measure_errors(values: NDArray[np.float32], truth: Truth, task: Task) -> dict[str, float]:
    """Measure the errors of numbers in the competition's units; `values`, `truth`: (images, 1), in range units."""
    low, high = task.value_range
    errors = (high - low) * (values[:, 0].astype(np.float64) - truth[:, 0])
    sizes = np.abs(errors)
    shares = {f"{share:.0%} of errors are at most": float(np.quantile(sizes, share)) for share in SHARES}
    return {"mean error": float(errors.mean()), "mean absolute error": float(sizes.mean()), **shares}
