"""Thresholds and numbers of labels, fitted to out-of-fold predictions by the rule that the kernel decides by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.ensemble.decide import decide
from inference.manifest.labels import Labels
from inference.manifest.records import Decision, GroupDecision
from zoo.f2 import THRESHOLDS, count_above, score_counts, score_samples

MINIMA = (0, 1, 2)
MAXIMA = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15)  # and all of the group, which is tried first
# What float64 cannot tell apart is no gain.
SMALLEST_GAIN = 1e-12
EVERY = slice(None)


@dataclass(frozen=True)
class GroupRule:
    """A group's decision, its threshold as a place in THRESHOLDS."""

    place: int
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Counts:
    """How many labels are taken and how many of them are true, (images, ways of taking) each."""

    taken: NDArray[np.integer[Any]]
    hits: NDArray[np.integer[Any]]

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.taken + other.taken, self.hits + other.hits)

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.taken - other.taken, self.hits - other.hits)


@dataclass(frozen=True)
class RankedGroup:
    """What a search needs to know of a group.

    `above`: labels at or above each threshold, (images, thresholds); `hits`: true ones among the first k labels by
    score, (images, 1 + labels).
    """

    above: NDArray[np.integer[Any]]
    hits: NDArray[np.integer[Any]]

    @property
    def size(self) -> int:
        """Labels of the group."""
        return int(self.hits.shape[1]) - 1

    def take(self, minimum: int, maximum: int, places: slice | list[int] = EVERY) -> Counts:
        """What a minimum and a maximum take at the thresholds of `places`."""
        taken = np.maximum(np.minimum(self.above[:, places], maximum), minimum)
        return Counts(taken, np.take_along_axis(self.hits, taken, axis=1))


@dataclass(frozen=True)
class RankedScores:
    """Scores and truth, made ready for the search.

    `true`: labels of each image, (images, 1); `bare`: each image's F2 where it would be given none and so gets its one
    best label, (images, 1).
    """

    groups: Mapping[str, RankedGroup]
    true: NDArray[np.integer[Any]]
    bare: NDArray[np.float64]

    def score(self, counts: Counts) -> NDArray[np.float64]:
        """Mean F2 over the images of each way of taking labels, from its counts over all groups."""
        f2 = score_counts(counts.hits, counts.taken, self.true)
        means: NDArray[np.float64] = np.where(counts.taken > 0, f2, self.bare).mean(axis=0)
        return means


@dataclass(frozen=True)
class FittedDecision:
    """Rules by group, and their mean F2: one threshold for all groups; one for each; thresholds and numbers of labels.

    None is below the one before; the last is for `decision.groups` of the manifest.
    """

    stages: tuple[Mapping[str, GroupDecision], Mapping[str, GroupDecision], Mapping[str, GroupDecision]]
    f2: tuple[float, float, float]

    @property
    def groups(self) -> Mapping[str, GroupDecision]:
        """The rules of the last stage."""
        return self.stages[-1]


def fit_decision(scores: Scores, truth: NDArray[np.bool_], labels: Labels) -> FittedDecision:
    """The decision with the best sample-mean F2 over all labels, by coordinate search.

    `scores`, `truth`: (images, labels). Group by group, every threshold of THRESHOLDS with every number of labels of
    MINIMA and MAXIMA is tried while the other groups stand still, until nothing changes. The F2 that is returned
    comes from `decide` on the same images: it is fitted to them and so too high for others, by
    little where thousands of images carry six numbers.
    """
    evidence = rank_groups(scores, truth, labels)
    single = search_single(evidence)
    apart = search_groups(evidence, single, minima=(0,), maxima=())
    counted = search_groups(evidence, apart, minima=MINIMA, maxima=MAXIMA)
    stages = (declare_rules(single), declare_rules(apart), declare_rules(counted))
    # Not the search's own figures: what the kernel's code makes of these rules.
    first, second, third = (score_decision(groups, scores, truth, labels) for groups in stages)
    return FittedDecision(stages, (first, second, third))


def score_decision(
    groups: Mapping[str, GroupDecision], scores: Scores, truth: NDArray[np.bool_], labels: Labels
) -> float:
    """Mean F2 of the kernel's decision by these rules; `scores`, `truth`: (images, labels)."""
    return float(score_samples(decide(scores, labels, Decision(groups, prior=())), truth).mean())


def decide_crossed(scores: Scores, truth: NDArray[np.bool_], labels: Labels) -> NDArray[np.bool_]:
    """The labels taken, (images, labels), each half of the images by rules fitted to the other half.

    None of a single image, for which there is no other half.
    """
    taken = np.zeros_like(truth)
    halves = (slice(0, None, 2), slice(1, None, 2))
    for fitted, judged in (halves, halves[::-1]):
        if len(truth) > 1:
            rules = fit_decision(scores[fitted], truth[fitted], labels).groups
            taken[judged] = decide(scores[judged], labels, Decision(rules, prior=()))
    return taken


def cross_fit(scores: Scores, truth: NDArray[np.bool_], labels: Labels) -> float:
    """Mean F2 where each half of the images is decided by rules fitted to the other half: honest, if a little low."""
    return float(score_samples(decide_crossed(scores, truth, labels), truth).mean())


def rank_groups(scores: Scores, truth: NDArray[np.bool_], labels: Labels) -> RankedScores:
    """Sort each image's labels once, so that a rule costs one look-up an image; `scores`, `truth`: (images, labels)."""
    groups = {}
    for group, columns in labels.groups.items():
        part = scores[:, columns]
        order = np.argsort(-part, axis=1, kind="stable")  # equal scores as decide_group ranks them
        ranked = np.take_along_axis(truth[:, columns], order, axis=1)
        hits = np.zeros((len(part), part.shape[1] + 1), np.int16)
        ranked.cumsum(axis=1, out=hits[:, 1:])
        groups[group] = RankedGroup(count_above(part).astype(np.int16), hits)
    true = truth.sum(axis=1, keepdims=True, dtype=np.int16)
    best_is_true = np.take_along_axis(truth, scores.argmax(axis=1)[:, None], axis=1)
    return RankedScores(groups, true, score_counts(best_is_true, np.ones_like(true), true))


def search_single(evidence: RankedScores) -> dict[str, GroupRule]:
    """The best threshold that all groups share; of equal ones, the lowest."""
    counts = reduce(Counts.__add__, (ranked.take(0, ranked.size) for ranked in evidence.groups.values()))
    place = int(evidence.score(counts).argmax())
    return {group: GroupRule(place, 0, ranked.size) for group, ranked in evidence.groups.items()}


def search_groups(
    evidence: RankedScores, start: Mapping[str, GroupRule], minima: Sequence[int], maxima: Sequence[int]
) -> dict[str, GroupRule]:
    """Better one group's rule after another until none can be; never worse than `start`.

    Of equal rules, the one with fewer limits, then the one with the lower threshold.
    """
    rules = dict(start)
    total = reduce(Counts.__add__, (take_by(ranked, rules[group]) for group, ranked in evidence.groups.items()))
    best = float(evidence.score(total)[0])
    improved = True
    while improved:
        improved = False
        for group, ranked in evidence.groups.items():
            elsewhere = total - take_by(ranked, rules[group])
            for minimum in (number for number in minima if number <= ranked.size):
                limits = (number for number in maxima if max(minimum, 1) <= number < ranked.size)
                for maximum in (ranked.size, *limits):
                    means = evidence.score(ranked.take(minimum, maximum) + elsewhere)
                    place = int(means.argmax())
                    if means[place] > best + SMALLEST_GAIN:
                        best, improved = float(means[place]), True
                        rules[group] = GroupRule(place, minimum, maximum)
            total = elsewhere + take_by(ranked, rules[group])
    return rules


def take_by(ranked: RankedGroup, rule: GroupRule) -> Counts:
    """What one rule takes, (images, 1)."""
    return ranked.take(rule.minimum, rule.maximum, [rule.place])


def declare_rules(rules: Mapping[str, GroupRule]) -> dict[str, GroupDecision]:
    """The rules as the manifest declares them."""
    return {
        group: GroupDecision(float(THRESHOLDS[rule.place]), rule.minimum, rule.maximum) for group, rule in rules.items()
    }
