"""Weights fitted for the best sample-mean F2: of the members in the blend, and of the parts in the mix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from zoo.f2 import THRESHOLDS, count_above, score_counts

# Labels considered per image: the best by any part. The others score below every useful threshold.
CANDIDATES = 40
STEPS = (0.2, 0.1, 0.05)
# In F2. A smaller gain is noise, and equal weights are safer.
SMALLEST_GAIN = 1e-5


@dataclass(frozen=True)
class Candidates:
    """The candidate labels of one group, scored by the parts to weight."""

    names: tuple[str, ...]
    scores: NDArray[np.float32]
    """(parts, images, candidates)."""
    truth: NDArray[np.bool_]
    """(images, candidates)."""

    def count(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count predicted labels, and the true ones among them, at each of THRESHOLDS; (images, thresholds) each."""
        mixed = np.tensordot(weights.astype(np.float32), self.scores, axes=1)
        return count_above(mixed), count_above(np.where(self.truth, mixed, np.float32(-1)))


def fit_weights(
    scores: Mapping[str, NDArray[np.floating[Any]]],
    covers: Mapping[str, Sequence[str]],
    truth: NDArray[np.bool_],
    labels: Labels,
) -> dict[str, dict[str, float]]:
    """Fit the weights of each group's parts, adding up to 1, for the best F2 at one threshold per group.

    `scores`: by part, (images, labels), NaN for labels that it does not cover; `covers`: by group, the parts that cover
    it; `truth`: (images, labels). Method: coordinate search from equal weights, which changes one weight by a step and
    keeps the ratios of the others. Judge the weights on other images.
    """
    groups = {
        group: gather_parts({name: scores[name] for name in covers[group]}, truth, labels.columns(group))
        for group in labels.groups
    }
    true = truth.sum(axis=1, keepdims=True)
    weights = {group: np.full(len(parts.names), 1 / len(parts.names)) for group, parts in groups.items()}
    counts = {group: parts.count(weights[group]) for group, parts in groups.items()}
    best = _find_places(counts, true)
    for _ in range(2):  # a group's best weights depend a little on the labels predicted in the other groups
        for group, parts in groups.items():
            elsewhere = [
                (predicted[:, best[name]], hits[:, best[name]])
                for name, (predicted, hits) in counts.items()
                if name != group
            ]
            predicted = sum((one[0] for one in elsewhere), np.zeros(len(truth), np.int64))[:, None]
            hits = sum((one[1] for one in elsewhere), np.zeros(len(truth), np.int64))[:, None]
            weights[group] = _search(parts, weights[group], predicted, hits, true)
            counts[group] = parts.count(weights[group])
            best[group] = int(_score(counts[group], predicted, hits, true).argmax())
    return {
        group: {name: round(float(weight), 4) for name, weight in zip(parts.names, weights[group], strict=True)}
        for group, parts in groups.items()
    }


def gather_parts(
    scores: Mapping[str, NDArray[np.floating[Any]]], truth: NDArray[np.bool_], columns: Sequence[int]
) -> Candidates:
    """Select the candidates of a group: per image, the labels with the largest score of any part."""
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
    predicted: NDArray[np.int64],
    hits: NDArray[np.int64],
    true: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Search the weights of one group; the other groups predict `predicted` labels, `hits` true; (images, 1) each."""
    weights, best = start, float(_score(parts.count(start), predicted, hits, true).max())
    for step in STEPS if len(parts.names) > 1 else ():
        improved = True
        while improved:
            improved = False
            for place in range(len(weights)):
                for change in (step, -step):
                    tried = _change(weights, place, change)
                    if tried is None:
                        continue
                    score = float(_score(parts.count(tried), predicted, hits, true).max())
                    if score > best + SMALLEST_GAIN:
                        weights, best, improved = tried, score, True
    return weights


def _change(weights: NDArray[np.float64], place: int, change: float) -> NDArray[np.float64] | None:
    """Change one weight and scale the others so that all add up to 1; None if that is not possible."""
    wanted = min(max(weights[place] + change, 0.0), 1.0)
    rest = 1 - weights[place]
    if wanted == weights[place] or rest == 0:
        return None
    changed: NDArray[np.float64] = weights * ((1 - wanted) / rest)
    changed[place] = wanted
    return changed


def _score(
    counts: tuple[NDArray[np.int64], NDArray[np.int64]],
    predicted: NDArray[np.int64],
    hits: NDArray[np.int64],
    true: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the mean F2 at each of THRESHOLDS."""
    means: NDArray[np.float64] = score_counts(counts[1] + hits, counts[0] + predicted, true).mean(axis=0)
    return means


def _find_places(
    counts: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]], true: NDArray[np.int64]
) -> dict[str, int]:
    """Find the best common threshold of all groups, as an index in THRESHOLDS, by group."""
    predicted = sum((one[0] for one in counts.values()), np.zeros((len(true), len(THRESHOLDS)), np.int64))
    hits = sum((one[1] for one in counts.values()), np.zeros((len(true), len(THRESHOLDS)), np.int64))
    return dict.fromkeys(counts, int(score_counts(hits, predicted, true).mean(axis=0).argmax()))
