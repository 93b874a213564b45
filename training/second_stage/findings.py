"""What a fit has found, as figures: for the terminal, for JSON, and for the page."""

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
# How often a label occurs: bounds of the slices.
FREQUENCIES = (20, 100, 1000)


@dataclass(frozen=True)
class Judged:
    """A method or a rule: its mean F2, how far above the one that it is held against, and the 95 % interval of that."""

    name: str
    f2: float
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupCurves:
    """Of one group and the final scores: F2 of the group's labels by threshold, and how its chances hold.

    `f2`: at each of `thresholds`, on images with a label of the group. `reliability`: of calibrated chances.
    """

    thresholds: tuple[float, ...]
    f2: tuple[float, ...]
    chosen: float
    reliability: Reliability


@dataclass(frozen=True)
class FrequencySlice:
    """Labels of similar frequency: how many, and their F2 as if there were no others (of all pairs), by method."""

    name: str
    labels: int
    f2: Mapping[str, float]


@dataclass(frozen=True)
class Findings:
    """`methods`: by thresholds and numbers of labels, held against the weighted average; `rules`: of the last method,
    held against a threshold a group; `values`: of the members."""

    images: int
    folds: int
    method: str
    rule: str
    methods: tuple[Judged, ...]
    rules: tuple[Judged, ...]
    weights: Weights
    mix: Weights
    values: Mapping[str, float]
    curves: Mapping[str, GroupCurves]
    slices: tuple[FrequencySlice, ...]
    parity: Mapping[str, float]


def judge_nested(nested: Nested, methods: Sequence[str]) -> tuple[tuple[Judged, ...], tuple[Judged, ...]]:
    """The methods against the weighted average, and the last method's rules against a threshold a group."""
    compared = tuple(hold_against(method, nested.f2[method, COUNTS], nested.f2[BLEND, COUNTS]) for method in methods)
    last = methods[-1]
    rules = tuple(hold_against(rule, nested.f2[last, rule], nested.f2[last, PER_GROUP]) for rule in RULES)
    return compared, rules


def hold_against(name: str, f2: NDArray[np.float64], other: NDArray[np.float64]) -> Judged:
    """One mean F2 against another of the same images, with a paired bootstrap interval; `f2`, `other`: (images,)."""
    low, high = bootstrap_mean(f2 - other, seed=0) if (f2 != other).any() else (0.0, 0.0)
    return Judged(name, float(f2.mean()), float((f2 - other).mean()), low, high)


def draw_curves(
    scores: NDArray[np.float32],
    chances: NDArray[np.float32],
    truth: NDArray[np.bool_],
    labels: Labels,
    rules: Rules,
) -> dict[str, GroupCurves]:
    """The curves of each group; `scores`, `chances`, `truth`: (images, labels), out of the outer folds."""
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
            measure_reliability(chances[:, columns], truth[:, columns]),
        )
    return curves


def slice_by_frequency(taken: Mapping[str, NDArray[np.bool_]], truth: NDArray[np.bool_]) -> tuple[FrequencySlice, ...]:
    """F2 of the pairs of labels of similar frequency, by method; `taken`, `truth`: (images, labels)."""
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
            f2 = {method: score_label_pairs(part[:, columns], truth[:, columns]) for method, part in taken.items()}
            slices.append(FrequencySlice(name, len(columns), f2))
    return tuple(slices)


def score_label_pairs(taken: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """F2 of all pairs of image and label together, as scikit-learn's average="micro"."""
    one = score_samples(taken.reshape(1, -1), truth.reshape(1, -1))
    return float(one[0])


def describe_findings(found: Findings) -> str:
    """The tables of a fit, in lines."""
    rows = [("method", "F2", "against the weighted average", "95 % interval")]
    rows += [_show(one, one.name == BLEND) for one in found.methods]
    decided = [("rule", "F2", "against a threshold a group", "95 % interval")]
    decided += [_show(one, one.name == PER_GROUP) for one in found.rules]
    values = [("without", "F2 lost")]
    ranked = sorted(found.values.items(), key=lambda item: -item[1])
    values += [(member, f"{value:+.4f}") for member, value in ranked]
    return "\n".join(
        [
            f"{found.images} images, out of {found.folds} outer folds: no image is judged by what was fitted to it",
            "",
            *align_columns(rows, left=1),
            "",
            f"{found.method}, decided by",
            *align_columns(decided, left=1),
            "",
            *align_columns(values, left=1),
            "",
            *(f"blend, {group}: {_list_weights(weights)}" for group, weights in found.weights.items()),
            *(f"mix, {group}: {_list_weights(weights)}" for group, weights in found.mix.items()),
        ]
    )


def _show(one: Judged, is_base: bool) -> tuple[str, str, str, str]:
    name = "weighted average" if one.name == BLEND else one.name
    if is_base:
        return name, f"{one.f2:.4f}", "", ""
    return name, f"{one.f2:.4f}", f"{one.gain:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}"


def _list_weights(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
