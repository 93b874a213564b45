"""Weights that add to 1, chosen for sample-mean F2: of members in the blend, of the blend and stackers in the mix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from zoo.f2 import THRESHOLDS, count_above, score_counts

# Labels of an image that can be taken at all: the best by any part. Others score below every threshold worth having.
CANDIDATES = 40
STEPS = (0.2, 0.1, 0.05)
# Of F2. Less is noise, and equal weights are the safer choice.
SMALLEST_GAIN = 1e-5


@dataclass(frozen=True)
class Candidates:
    """The scores to be weighed, of the labels of one group that are candidates.

    `scores`: (parts, images, candidates); `truth`: (images, candidates).
    """

    names: tuple[str, ...]
    scores: NDArray[np.float32]
    truth: NDArray[np.bool_]

    def count(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Labels taken and those of them that are true at each of THRESHOLDS, (images, thresholds) each."""
        mixed = np.tensordot(weights.astype(np.float32), self.scores, axes=1)
        return count_above(mixed), count_above(np.where(self.truth, mixed, np.float32(-1)))


def fit_weights(
    scores: Mapping[str, NDArray[np.floating[Any]]],
    covers: Mapping[str, Sequence[str]],
    truth: NDArray[np.bool_],
    labels: Labels,
) -> dict[str, dict[str, float]]:
    """For each group, weights of the parts that cover it, adding to 1, with the best F2 at a threshold for each group.

    `scores`: by part, (images, labels), NaN in labels that it does not cover; `covers`: by group, the parts that do;
    `truth`: (images, labels). A coordinate search from equal weights: one part's weight is changed by a step at a time,
    the others keep their ratios. It is fitted to these images: judge it on others.
    """
    groups = {
        group: gather_parts({name: scores[name] for name in covers[group]}, truth, labels.columns(group))
        for group in labels.groups
    }
    true = truth.sum(axis=1, keepdims=True)
    weights = {group: np.full(len(parts.names), 1 / len(parts.names)) for group, parts in groups.items()}
    counts = {group: parts.count(weights[group]) for group, parts in groups.items()}
    best = _find_places(counts, true)
    for _ in range(2):  # a group's best weights depend on what the others take, by little
        for group, parts in groups.items():
            elsewhere = [
                (taken[:, best[name]], hits[:, best[name]]) for name, (taken, hits) in counts.items() if name != group
            ]
            taken = sum((one[0] for one in elsewhere), np.zeros(len(truth), np.int64))[:, None]
            hits = sum((one[1] for one in elsewhere), np.zeros(len(truth), np.int64))[:, None]
            weights[group] = _search(parts, weights[group], taken, hits, true)
            counts[group] = parts.count(weights[group])
            best[group] = int(_score(counts[group], taken, hits, true).argmax())
    return {
        group: {name: round(float(weight), 4) for name, weight in zip(parts.names, weights[group], strict=True)}
        for group, parts in groups.items()
    }


def gather_parts(
    scores: Mapping[str, NDArray[np.floating[Any]]], truth: NDArray[np.bool_], columns: Sequence[int]
) -> Candidates:
    """The candidates of a group: the labels that rank highest by the largest score of any part."""
    places = np.array(columns)
    stacked = np.stack([part[:, places] for part in scores.values()]).astype(np.float32)
    size = min(CANDIDATES, len(places))
    chosen = np.argpartition(-stacked.max(axis=0), size - 1, axis=1)[:, :size]
    return Candidates(
        tuple(scores),
        np.take_along_axis(stacked, chosen[None], axis=2),
        np.take_along_axis(truth[:, places], chosen, axis=1),
    )


def _search(
    parts: Candidates,
    start: NDArray[np.float64],
    taken: NDArray[np.int64],
    hits: NDArray[np.int64],
    true: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The weights of one group while the others take `taken` labels, `hits` of them true, (images, 1) each."""
    weights, best = start, float(_score(parts.count(start), taken, hits, true).max())
    for step in STEPS if len(parts.names) > 1 else ():
        improved = True
        while improved:
            improved = False
            for place in range(len(weights)):
                for change in (step, -step):
                    tried = _change(weights, place, change)
                    if tried is None:
                        continue
                    score = float(_score(parts.count(tried), taken, hits, true).max())
                    if score > best + SMALLEST_GAIN:
                        weights, best, improved = tried, score, True
    return weights


def _change(weights: NDArray[np.float64], place: int, change: float) -> NDArray[np.float64] | None:
    """One weight changed, the others in their ratios, all adding to 1; None where that is not possible."""
    wanted = min(max(weights[place] + change, 0.0), 1.0)
    rest = 1 - weights[place]
    if wanted == weights[place] or rest == 0:
        return None
    changed: NDArray[np.float64] = weights * ((1 - wanted) / rest)
    changed[place] = wanted
    return changed


def _score(
    counts: tuple[NDArray[np.int64], NDArray[np.int64]],
    taken: NDArray[np.int64],
    hits: NDArray[np.int64],
    true: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Mean F2 at each of THRESHOLDS."""
    means: NDArray[np.float64] = score_counts(counts[1] + hits, counts[0] + taken, true).mean(axis=0)
    return means


def _find_places(
    counts: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]], true: NDArray[np.int64]
) -> dict[str, int]:
    """The threshold that is best for all groups together, as a place in THRESHOLDS, for each."""
    taken = sum((one[0] for one in counts.values()), np.zeros((len(true), len(THRESHOLDS)), np.int64))
    hits = sum((one[1] for one in counts.values()), np.zeros((len(true), len(THRESHOLDS)), np.int64))
    return dict.fromkeys(counts, int(score_counts(hits, taken, true).mean(axis=0).argmax()))
