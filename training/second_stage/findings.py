"""The figures of a fit, for the terminal, for JSON and for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.records import BLEND
from training.scoring.bootstrap import bootstrap_mean
from training.second_stage.calibration import Reliability, measure_reliability
from training.second_stage.judge import COUNTS, RULES, Nested, Rules, Weights
from zoo.f2 import THRESHOLDS, count_above, score_counts, score_samples
from zoo.text import align_columns

PER_GROUP = RULES[1]
# Images per label: bounds of the slices.
FREQUENCIES = (20, 100, 1000)


@dataclass(frozen=True)
class Judged:
    """A method or a rule, compared with a reference on the same images."""

    name: str
    f2: float
    gain: float
    """Its mean F2 minus that of the reference; `low` to `high`: the 95 % interval."""
    low: float
    high: float


@dataclass(frozen=True)
class GroupCurves:
    """F2 by threshold and calibration of one group, for the final scores."""

    thresholds: tuple[float, ...]
    f2: tuple[float, ...]
    """At each threshold, on the images with a label of the group."""
    chosen: float
    """The threshold of the manifest."""
    reliability: Reliability
    """Of the calibrated probabilities."""


@dataclass(frozen=True)
class FrequencySlice:
    """Labels of similar frequency."""

    name: str
    labels: int
    f2: Mapping[str, float]
    """By method, over all pairs of an image and one of these labels."""


@dataclass(frozen=True)
class Findings:
    """All figures of a fit, in the order of second_stage.json."""

    images: int
    folds: int
    method: str
    """The last of `methods`; `rule`: the one of `rules` with the highest F2."""
    rule: str
    methods: tuple[Judged, ...]
    """Decided by thresholds and label counts, compared with the weighted average."""
    rules: tuple[Judged, ...]
    """Applied to `method`, compared with a threshold per group."""
    weights: Weights
    mix: Weights
    values: Mapping[str, float]
    """By member, the mean F2 lost without it."""
    curves: Mapping[str, GroupCurves]
    slices: tuple[FrequencySlice, ...]
    parity: Mapping[str, float]
    """By stacker, the largest difference of the ONNX file's scores."""


def judge_nested(nested: Nested, methods: Sequence[str]) -> tuple[tuple[Judged, ...], tuple[Judged, ...]]:
    """Compare the methods with the weighted average, and the last method's rules with a threshold per group."""
    compared = tuple(compare_f2(method, nested.f2[method, COUNTS], nested.f2[BLEND, COUNTS]) for method in methods)
    last = methods[-1]
    rules = tuple(compare_f2(rule, nested.f2[last, rule], nested.f2[last, PER_GROUP]) for rule in RULES)
    return compared, rules


def compare_f2(name: str, f2: NDArray[np.float64], other: NDArray[np.float64]) -> Judged:
    """Compare the F2 of the same images, (images,) each, with a paired bootstrap interval of the difference."""
    low, high = bootstrap_mean(f2 - other, seed=0) if (f2 != other).any() else (0.0, 0.0)
    return Judged(name, float(f2.mean()), float((f2 - other).mean()), low, high)


def measure_curves(
    scores: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    truth: NDArray[np.bool_],
    labels: Labels,
    rules: Rules,
) -> dict[str, GroupCurves]:
    """Measure the curves of each group; `scores`, `probabilities`, `truth`: (images, labels), from the outer folds."""
    curves = {}
    for group in labels.groups:
        columns = list(labels.columns(group))
        rows = np.flatnonzero(truth[:, columns].any(axis=1))
        part, true = scores[rows][:, columns], truth[rows][:, columns]
        hits = count_above(np.where(true, part, np.float32(-1)))
        f2 = score_counts(hits, count_above(part), true.sum(axis=1, keepdims=True)).mean(axis=0)
        curves[group] = GroupCurves(
            tuple(map(float, THRESHOLDS)),
            tuple(map(float, f2)),
            rules.stages[-1][group].threshold,
            measure_reliability(probabilities[:, columns], truth[:, columns]),
        )
    return curves


def slice_by_frequency(
    predicted: Mapping[str, NDArray[np.bool_]], truth: NDArray[np.bool_]
) -> tuple[FrequencySlice, ...]:
    """Score labels of similar frequency; `predicted`, by method, and `truth`: (images, labels)."""
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
            f2 = {method: score_label_pairs(part[:, columns], truth[:, columns]) for method, part in predicted.items()}
            slices.append(FrequencySlice(name, len(columns), f2))
    return tuple(slices)


def score_label_pairs(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the F2 of all pairs of image and label together, as scikit-learn's average="micro"."""
    one = score_samples(predicted.reshape(1, -1), truth.reshape(1, -1))
    return float(one[0])


def describe_findings(found: Findings) -> str:
    """Format the tables of a fit for the terminal."""
    rows = [("method", "F2", "against the weighted average", "95 % interval")]
    rows += [_show(one, one.name == BLEND) for one in found.methods]
    decided = [("rule", "F2", f"against {PER_GROUP}", "95 % interval")]
    decided += [_show(one, one.name == PER_GROUP) for one in found.rules]
    values = [("without", "F2 lost")]
    ranked = sorted(found.values.items(), key=lambda item: -item[1])
    values += [(member, f"{value:+.4f}") for member, value in ranked]
    return "\n".join(
        [
            f"{found.images} images in {found.folds} outer folds; each image is judged by a fit to other images",
            "",
            *align_columns(rows, left=1),
            "",
            f"decision rules for the {found.method}",
            *align_columns(decided, left=1),
            "",
            *align_columns(values, left=1),
            "",
            *(f"blend weights, {group}: {_list_weights(weights)}" for group, weights in found.weights.items()),
            *(f"mix weights, {group}: {_list_weights(weights)}" for group, weights in found.mix.items()),
        ]
    )


def _show(one: Judged, is_base: bool) -> tuple[str, str, str, str]:
    name = "weighted average" if one.name == BLEND else one.name
    if is_base:
        return name, f"{one.f2:.4f}", "", ""
    return name, f"{one.f2:.4f}", f"{one.gain:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}"


def _list_weights(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
