"""Thresholds for macro F-beta of several labels per image: one for all, one per group, one per label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.manifest.labels import Labels
from training.scoring.halves import HALVES
from zoo.metrics.f_beta import THRESHOLDS, count_above, score_counts

STRENGTHS = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, np.inf)
"""Numbers of true images for which a label's own threshold counts as much as its group's; inf: the group's alone."""
Places = NDArray[np.int64]
"""(labels,): the index of each label's threshold in THRESHOLDS."""


@dataclass(frozen=True)
class LabelCounts:
    """Images of each label at or above each threshold."""

    hits: NDArray[np.int64]
    """(labels, thresholds): the true ones among them."""
    predicted: NDArray[np.int64]
    """(labels, thresholds)."""
    true: NDArray[np.int64]
    """(labels, 1): true ones in all."""

    def score(self, beta: float) -> NDArray[np.float64]:
        """Return F-beta of each label at each threshold, (labels, thresholds)."""
        return score_counts(self.hits, self.predicted, self.true, beta)


@dataclass(frozen=True)
class LabelThresholds:
    """The thresholds of the three stages of a fit, (labels,) each."""

    single: NDArray[np.float64]
    apart: NDArray[np.float64]
    """Equal within a group."""
    shrunk: NDArray[np.float64]
    strength: float
    """The strength of the shrinkage, one of STRENGTHS."""


def fit_label_thresholds(scores: Scores, truth: NDArray[np.bool_], labels: Labels, beta: float) -> LabelThresholds:
    """Return the thresholds with the best macro F-beta; `scores`, `truth`: (images, labels).

    A label's own best threshold is a poor guess if few images have the label. So its logit is averaged with that of
    its group's threshold, with the weights n (images that have the label) and m (a strength). The m of STRENGTHS with
    the best macro F-beta is taken when each half of the images is decided by thresholds fitted to the other half.
    """
    counts = count_images(scores, truth)
    found = counts.score(beta)
    single = np.full(len(found), found.mean(axis=0).argmax())
    strength = choose_strength(scores, truth, labels, beta)
    apart = find_group_places(found, labels)
    shrunk = shrink_places(found.argmax(axis=1), apart, counts.true[:, 0], strength)
    return LabelThresholds(THRESHOLDS[single], THRESHOLDS[apart], THRESHOLDS[shrunk], strength)


def count_images(scores: Scores, truth: NDArray[np.bool_]) -> LabelCounts:
    """Count the images of each label; `scores`, `truth`: (images, labels)."""
    # A score below every threshold, so that a label that is not true is never a hit.
    hits = count_above(np.where(truth, scores, scores.dtype.type(-1)).T)
    return LabelCounts(hits, count_above(scores.T), truth.sum(axis=0)[:, None])


def find_group_places(found: NDArray[np.float64], labels: Labels) -> Places:
    """Return the best threshold of each group; `found`: F-beta, (labels, thresholds). Of equal ones, the lowest."""
    places = np.zeros(len(found), np.int64)
    for columns in labels.groups.values():
        places[list(columns)] = found[list(columns)].mean(axis=0).argmax()
    return places


def shrink_places(own: Places, group: Places, true: NDArray[np.int64], strength: float) -> Places:
    """Return the thresholds nearest to the weighted means of the logits of `own` and `group`; `true`: (labels,)."""
    logits = np.log(THRESHOLDS / (1 - THRESHOLDS))
    share = true / (true + strength)
    means = share * logits[own] + (1 - share) * logits[group]
    nearest: Places = np.abs(logits - means[:, None]).argmin(axis=1)
    return nearest


def choose_strength(scores: Scores, truth: NDArray[np.bool_], labels: Labels, beta: float) -> float:
    """Return the strength of the shrinkage that serves other images best; of equal ones, the strongest."""
    if len(scores) < len(HALVES):
        return STRENGTHS[-1]
    halves = [count_images(scores[half], truth[half]) for half in HALVES]
    return max(STRENGTHS[::-1], key=lambda strength: score_crossed(halves, labels, strength, beta))


def score_crossed(halves: Sequence[LabelCounts], labels: Labels, strength: float, beta: float) -> float:
    """Return macro F-beta of all images, each half decided by thresholds shrunk on the other half."""
    hits, predicted = np.zeros((2, len(labels.ids)), np.int64)
    for fitted, judged in (halves, halves[::-1]):
        found = fitted.score(beta)
        places = shrink_places(found.argmax(axis=1), find_group_places(found, labels), fitted.true[:, 0], strength)
        rows = np.arange(len(places))
        hits += judged.hits[rows, places]
        predicted += judged.predicted[rows, places]
    true = halves[0].true[:, 0] + halves[1].true[:, 0]
    return float(score_counts(hits, predicted, true, beta).mean())
