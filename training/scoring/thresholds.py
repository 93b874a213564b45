"""Thresholds and label counts per group for F-beta of samples or of all pairs, by the kernel's decision rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.ensemble.decide import decide
from inference.manifest.decision import Decision, GroupDecision
from inference.manifest.labels import Labels
from inference.manifest.task import Average
from zoo.metrics.f_beta import (
    SMALL_SQUARE,
    THRESHOLDS,
    count_above,
    count_pairs,
    score_counts,
    score_pairs,
    score_samples,
)

MINIMA = (0, 1, 2)
MAXIMA = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15)  # and the size of the group, which is tried first
# Smaller differences are rounding errors of float64.
SMALLEST_GAIN = 1e-12
EVERY = slice(None)


@dataclass(frozen=True)
class GroupRule:
    """The decision rule of a group."""

    place: int
    """Index of the threshold in THRESHOLDS."""
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Counts:
    """The number of labels that each of several rules selects, and how many of them are true, (images, rules) each."""

    selected: NDArray[np.integer[Any]]
    hits: NDArray[np.integer[Any]]

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.selected + other.selected, self.hits + other.hits)

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.selected - other.selected, self.hits - other.hits)


@dataclass(frozen=True)
class RankedGroup:
    """The labels of a group, counted for the search."""

    above: NDArray[np.integer[Any]]
    """(images, thresholds): labels at or above each threshold."""
    hits: NDArray[np.integer[Any]]
    """(images, 1 + labels): true ones among the first k labels by score."""

    @property
    def size(self) -> int:
        """Number of labels of the group."""
        return int(self.hits.shape[1]) - 1

    def select(self, minimum: int, maximum: int, places: slice | list[int] = EVERY) -> Counts:
        """Count the labels selected with a minimum and a maximum at the thresholds of `places`."""
        selected = np.maximum(np.minimum(self.above[:, places], maximum), minimum)
        return Counts(selected, np.take_along_axis(self.hits, selected, axis=1))


@dataclass(frozen=True)
class RankedScores:
    """Scores and truth, counted for the search."""

    groups: Mapping[str, RankedGroup]
    true: NDArray[np.integer[Any]]
    """(images, 1): true labels."""
    bare: NDArray[np.integer[Any]]
    """(images, 1): hits if no rule selects a label, so that the kernel predicts the one with the highest score."""
    beta: float
    average: Average = "samples"

    def score(self, counts: Counts) -> NDArray[np.float64]:
        """Return F-beta over the images for each rule, from its counts over all groups, (rules,)."""
        some = counts.selected > 0
        if self.average == "micro":
            hits = np.where(some, counts.hits, self.bare).sum(axis=0, dtype=np.int64)
            selected = np.maximum(counts.selected, 1).sum(axis=0, dtype=np.int64)
            return score_counts(hits, selected, self.true.sum(dtype=np.int64), self.beta)
        found = score_counts(counts.hits, counts.selected, self.true, self.beta)
        bare = score_counts(self.bare, np.ones_like(self.true), self.true, self.beta)
        means: NDArray[np.float64] = np.where(some, found, bare).mean(axis=0)
        return means


@dataclass(frozen=True)
class FittedDecision:
    """The rules of the three stages of a fit."""

    stages: tuple[Mapping[str, GroupDecision], Mapping[str, GroupDecision], Mapping[str, GroupDecision]]
    """By group: one threshold for all groups; one per group; thresholds and limits per group."""
    figures: tuple[float, float, float]
    """F-beta of each stage; never below the previous stage's."""

    @property
    def groups(self) -> Mapping[str, GroupDecision]:
        """The rules of the last stage, for `decision.groups` of the manifest."""
        return self.stages[-1]


def fit_decision(
    scores: Scores, truth: NDArray[np.bool_], labels: Labels, beta: float, average: Average = "samples"
) -> FittedDecision:
    """Return the decision with the best F-beta over all labels, by coordinate search.

    `scores`, `truth`: (images, labels); `average`: samples or micro. For one group at a time, all combinations of
    THRESHOLDS, MINIMA and MAXIMA are tried while the other groups stay fixed, until nothing improves. The F-beta is
    that of `decide` on the same images, so it is too high for others; with six parameters and thousands of images, the
    excess is small.
    """
    evidence = rank_groups(scores, truth, labels, beta, average)
    single = search_single(evidence)
    apart = search_groups(evidence, single, minima=(0,), maxima=())
    counted = search_groups(evidence, apart, minima=MINIMA, maxima=MAXIMA)
    stages = (declare_rules(single), declare_rules(apart), declare_rules(counted))
    # F-beta from the kernel's code, not from the search.
    first, second, third = (score_decision(groups, scores, truth, labels, beta, average) for groups in stages)
    return FittedDecision(stages, (first, second, third))


def score_decision(
    groups: Mapping[str, GroupDecision],
    scores: Scores,
    truth: NDArray[np.bool_],
    labels: Labels,
    beta: float,
    average: Average = "samples",
) -> float:
    """Return F-beta of the kernel's decision by these rules; `scores`, `truth`: (images, labels)."""
    selected = decide(scores, labels, Decision(groups, prior={}))
    if average == "micro":
        return score_pairs(count_pairs(selected, truth), beta)
    return float(score_samples(selected, truth, beta).mean())


def rank_groups(
    scores: Scores, truth: NDArray[np.bool_], labels: Labels, beta: float, average: Average = "samples"
) -> RankedScores:
    """Sort each image's labels once, so a rule needs one look-up per image; `scores`, `truth`: (images, labels)."""
    groups = {}
    for group, columns in labels.groups.items():
        part = scores[:, columns]
        order = np.argsort(-part, axis=1, kind="stable")  # ranks equal scores as decide_group does
        ranked = np.take_along_axis(truth[:, columns], order, axis=1)
        hits = np.zeros((len(part), part.shape[1] + 1), choose_counter(part.shape[1]))
        ranked.cumsum(axis=1, out=hits[:, 1:])
        groups[group] = RankedGroup(count_above(part).astype(hits.dtype), hits)
    true = truth.sum(axis=1, keepdims=True, dtype=choose_counter(truth.shape[1]))
    best_is_true = np.take_along_axis(truth, scores.argmax(axis=1)[:, None], axis=1)
    return RankedScores(groups, true, best_is_true.astype(true.dtype), beta, average)


def choose_counter(labels: int) -> type[np.integer[Any]]:
    """Return the smallest type that holds the terms of F-beta for this number of labels."""
    return np.int16 if (1 + SMALL_SQUARE) * labels <= np.iinfo(np.int16).max else np.int32


def search_single(evidence: RankedScores) -> dict[str, GroupRule]:
    """Return the best threshold common to all groups; of equal ones, the lowest."""
    counts = reduce(Counts.__add__, (ranked.select(0, ranked.size) for ranked in evidence.groups.values()))
    place = int(evidence.score(counts).argmax())
    return {group: GroupRule(place, 0, ranked.size) for group, ranked in evidence.groups.items()}


def search_groups(
    evidence: RankedScores, start: Mapping[str, GroupRule], minima: Sequence[int], maxima: Sequence[int]
) -> dict[str, GroupRule]:
    """Improve the rule of one group after another until none improves; the result is never worse than `start`.

    Of equal rules, prefers the one with fewer limits, then the one with the lower threshold.
    """
    rules = dict(start)
    total = reduce(Counts.__add__, (apply_rule(ranked, rules[group]) for group, ranked in evidence.groups.items()))
    best = float(evidence.score(total)[0])
    improved = True
    while improved:
        improved = False
        for group, ranked in evidence.groups.items():
            elsewhere = total - apply_rule(ranked, rules[group])
            for minimum in (number for number in minima if number <= ranked.size):
                limits = (number for number in maxima if max(minimum, 1) <= number < ranked.size)
                for maximum in (ranked.size, *limits):
                    means = evidence.score(ranked.select(minimum, maximum) + elsewhere)
                    place = int(means.argmax())
                    if means[place] > best + SMALLEST_GAIN:
                        best, improved = float(means[place]), True
                        rules[group] = GroupRule(place, minimum, maximum)
            total = elsewhere + apply_rule(ranked, rules[group])
    return rules


def apply_rule(ranked: RankedGroup, rule: GroupRule) -> Counts:
    """Count the labels that one rule selects, (images, 1)."""
    return ranked.select(rule.minimum, rule.maximum, [rule.place])


def declare_rules(rules: Mapping[str, GroupRule]) -> dict[str, GroupDecision]:
    """Return the rules in the form of the manifest."""
    return {
        group: GroupDecision(float(THRESHOLDS[rule.place]), rule.minimum, rule.maximum) for group, rule in rules.items()
    }
