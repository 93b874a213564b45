"""The tree stacker as one of the layers: which members it looks at, in which order, and what it scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inference.labels import Labels
from inference.members import fill_members
from inference.pairs import compute_features, find_pairs
from training.second_stage.evidence import Evidence
from training.second_stage.trees import IMAGE_CHUNK, choose_top, fit_trees, gather_samples, predict_trees

if TYPE_CHECKING:
    from lightgbm import Booster

# Pairs that trees are fitted to: some hundred megabytes of features.
MOST_PAIRS = 1_500_000


@dataclass(frozen=True)
class PairStacker:
    """Trees over pairs. `members`: in the order of the features, best first; `top`: labels of each member that become
    pairs; `counts`: images of each label that the trees were fitted to."""

    booster: "Booster"
    members: tuple[str, ...]
    top: int
    counts: NDArray[np.int64]


def fit_pairs(evidence: Evidence, labels: Labels, weights: Mapping[str, Mapping[str, float]], seed: int) -> PairStacker:
    """Fit trees to all images of `evidence`; `weights`: of the blend, whose heaviest members are combined in pairs."""
    heaviest = sorted(evidence.members, key=lambda name: -sum(given.get(name, 0.0) for given in weights.values()))
    filled = fill_members(order_members(evidence, tuple(heaviest)))
    counts = evidence.truth.sum(axis=0)
    top = choose_top(filled, evidence.truth)
    samples = gather_samples(
        filled, evidence.truth, top, counts, np.array(labels.owners), evidence.traits, MOST_PAIRS, seed
    )
    return PairStacker(fit_trees(samples, seed), tuple(heaviest), top, counts)


def score_pairs(
    stacker: PairStacker, evidence: Evidence, labels: Labels, blended: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores of all images, (images, labels): the trees' for the pairs, and `blended` for the others."""
    scored = blended.copy()
    for start in range(0, len(blended), IMAGE_CHUNK):
        part = evidence.take(np.arange(start, min(start + IMAGE_CHUNK, len(blended))))
        filled = fill_members(order_members(part, stacker.members))
        rows, columns = find_pairs(filled, stacker.top, stacker.counts)
        features = compute_features(filled, rows, columns, stacker.counts, np.array(labels.owners), part.traits)
        scored[start + rows, columns] = predict_trees(stacker.booster, features)
    return scored


def order_members(evidence: Evidence, members: tuple[str, ...]) -> NDArray[np.float32]:
    """The scores, (images, members, labels), of members in another order."""
    return evidence.scores[:, [evidence.members.index(name) for name in members]].astype(np.float32)
