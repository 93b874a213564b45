"""The tree stacker: gradient-boosted trees over pairs of image and label, after the 1st place of iMet 2019."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.ensemble.blend import fill_members
from inference.ensemble.pairs import (
    Floats,
    Integers,
    compute_features,
    find_pairs,
    name_features,
    share_scores,
)
from inference.manifest.labels import Labels
from training.second_stage.member_scores import MemberScores
from zoo.metrics.selection import Truth

if TYPE_CHECKING:
    from lightgbm import Booster

# Pairs to fit to: some hundred megabytes of features. Outputs of 'features' members are further columns, so that
# fewer pairs fit into this memory.
MOST_PAIRS = 1_500_000
COVERED = 0.995  # share of the true labels that become pairs
# Memory limits: pairs compared with all labels of their image at once, and images whose features are computed at once.
PAIR_CHUNK = 4096
IMAGE_CHUNK = 1024
# Few and small trees: on met96, more rounds and more leaves gained nothing on held-out images.
ROUNDS = 90
BINARY, SHARES = "binary", "cross_entropy"  # LightGBM's objectives of labels that are true or not, and of shares
SETTINGS = {
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 300,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "max_bin": 127,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True)
class PairStacker:
    """Fitted trees, and how to compute their input."""

    booster: "Booster"
    members: tuple[str, ...]
    """In the order of the features, best first."""
    top: int
    """Labels per member that become pairs, see `find_pairs`."""
    counts: NDArray[np.int64]
    """Training images per label, (labels,)."""
    exclusive: bool = False
    """One label per image: the scores of an image are divided by their sum."""
    features: tuple[tuple[str, int], ...] = ()
    """The members of group 'features' that it reads, and their numbers of outputs."""


@dataclass(frozen=True)
class Samples:
    """Pairs of image and label to fit trees to."""

    features: Floats
    """(pairs, features)."""
    truth: Truth
    """Whether the image has the label, or its share from 0 to 1, (pairs,)."""
    weights: Floats
    """Number of pairs that each sampled pair represents, (pairs,)."""


def fit_pairs(
    members: MemberScores,
    labels: Labels,
    weights: Mapping[str, Mapping[str, float]],
    seed: int,
    *,
    exclusive: bool = False,
) -> PairStacker:
    """Fit trees to all images; `weights`: of the blend, whose heaviest members also give features in pairs.

    `exclusive`: an image has one label.
    """
    ordered = sorted(members.stacked, key=lambda name: -sum(given.get(name, 0.0) for given in weights.values()))
    filled = fill_members(order_members(members, tuple(ordered)))
    counts = np.ceil(members.truth.sum(axis=0)).astype(np.int64)  # of soft labels, the sum of the shares
    # Of one label per image, all first labels may be true, and there would be nothing to classify.
    top = max(choose_top(filled, members.truth), 2 if exclusive else 1)
    read = tuple((name, members.features[name].shape[1]) for name in members.stacked_features)
    limit = int(MOST_PAIRS * find_share(ordered, read))
    samples = gather_samples(
        filled,
        members.truth,
        top,
        counts,
        np.array(labels.owners),
        members.traits,
        members.join_features(members.stacked_features),
        limit,
        seed,
    )
    return PairStacker(fit_trees(samples, seed), tuple(ordered), top, counts, exclusive, read)


def find_share(members: Sequence[str], extra: Sequence[tuple[str, int]]) -> float:
    """Return which share of the columns of a pair is there without the outputs of 'features' members, 0 to 1."""
    return len(name_features(members, ())) / len(name_features(members, extra))


def choose_top(scores: Floats, truth: Truth) -> int:
    """Choose the smallest number of labels per member with which COVERED of the true labels become pairs.

    `scores`: (images, members, labels), without NaN; `truth`: (images, labels). See `find_pairs`.
    """
    rows, columns = np.nonzero(truth)
    if not len(rows):
        return 1
    places = np.full(len(rows), truth.shape[1])
    for start in range(0, len(rows), PAIR_CHUNK):
        part = slice(start, start + PAIR_CHUNK)
        earlier = np.arange(truth.shape[1]) < columns[part, None]
        for member in range(scores.shape[1]):
            rivals = scores[rows[part], member]
            own = np.take_along_axis(rivals, columns[part, None], axis=1)
            ahead = ((rivals > own) | (earlier & (rivals == own))).sum(axis=1)
            places[part] = np.minimum(places[part], ahead)
    return int(np.sort(places)[int(np.ceil(COVERED * len(places))) - 1]) + 1


def gather_samples(
    scores: Floats,
    truth: Truth,
    top: int,
    counts: Integers,
    groups: Integers,
    traits: Floats,
    extra: Floats,
    limit: int,
    seed: int = 0,
) -> Samples:
    """Sample about `limit` pairs: all true ones, and a random part of the others.

    With `extra`, the limit is small, and at most half of it are true pairs, a random part of them.

    `scores`: (images, members, labels), without NaN; `truth`: (images, labels); the rest as in `compute_features`. The
    weights undo the sampling, so that the trees' probabilities hold for all pairs.
    """
    parts = [slice(start, start + IMAGE_CHUNK) for start in range(0, len(scores), IMAGE_CHUNK)]
    pairs = [find_pairs(scores[part], top, counts) for part in parts]
    true = [truth[part][found] for part, found in zip(parts, pairs, strict=True)]
    positives, total = sum(np.count_nonzero(one) for one in true), sum(len(one) for one in true)
    true_rate = min(limit / 2 / max(positives, 1), 1.0) if extra.shape[1] else 1.0
    rate = min(max(limit - true_rate * positives, 1) / max(total - positives, 1), 1.0)
    random = np.random.default_rng(seed)
    kept = [random.random(len(one)) < np.where(one > 0, true_rate, rate) for one in true]
    features = [
        compute_features(scores[part], rows[keep], columns[keep], counts, groups, traits[part], extra[part])
        for part, (rows, columns), keep in zip(parts, pairs, kept, strict=True)
    ]
    chosen = np.concatenate([one[keep] for one, keep in zip(true, kept, strict=True)])
    weights = np.where(chosen > 0, 1 / true_rate, 1 / rate).astype(np.float32)
    return Samples(np.concatenate(features), chosen, weights)


def fit_trees(samples: Samples, seed: int = 0, threads: int = 0) -> "Booster":
    """Fit trees that classify pairs as true or false; the same samples and seed give the same trees.

    Shares are fitted with cross-entropy. `threads`: 0 for all cores. Raises TrainingError: all pairs are true, or none
    is.
    """
    import lightgbm

    found = np.count_nonzero(samples.truth)
    if samples.truth.dtype == np.bool_ and found in (0, len(samples.truth)):
        raise TrainingError(
            f"tree stacker: found {found} true pairs of {len(samples.truth)}; wanted both true and false pairs"
        )
    objective = BINARY if samples.truth.dtype == np.bool_ else SHARES
    settings = {**SETTINGS, "objective": objective, "seed": seed, "num_threads": threads}
    data = lightgbm.Dataset(samples.features, samples.truth, weight=samples.weights, params=settings)
    return lightgbm.train(settings, data, ROUNDS)


def score_pairs(
    stacker: PairStacker, members: MemberScores, labels: Labels, blended: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return scores (images, labels): from the trees for the pairs, from `blended` for the other labels.

    With `exclusive`, those of an image are divided by their sum.
    """
    scored = blended.copy()
    names = [name for name, _ in stacker.features]
    chunk = max(int(IMAGE_CHUNK * find_share(stacker.members, stacker.features)), 1)
    for start in range(0, len(blended), chunk):
        part = members.take(np.arange(start, min(start + chunk, len(blended))))
        filled = fill_members(order_members(part, stacker.members))
        rows, columns = find_pairs(filled, stacker.top, stacker.counts)
        features = compute_features(
            filled, rows, columns, stacker.counts, np.array(labels.owners), part.traits, part.join_features(names)
        )
        scored[start + rows, columns] = predict_trees(stacker.booster, features)
    return share_scores(scored) if stacker.exclusive else scored


def order_members(members: MemberScores, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Return the scores, (images, members, labels), in the given order of members."""
    return members.scores[:, [members.names.index(name) for name in names]].astype(np.float32)


def predict_trees(booster: "Booster", features: Floats) -> Floats:
    """Return the probability of each pair, (pairs,); `features`: (pairs, features)."""
    return np.asarray(booster.predict(features), np.float32)
