"""The tree stacker: gradient-boosted trees over pairs of image and label, after the 1st place of iMet 2019."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.basics.files import replace_file
from inference.ensemble.blend import fill_members
from inference.ensemble.pairs import Floats, Integers, compute_features, find_pairs, share_scores
from inference.manifest.labels import Labels
from training.second_stage.member_scores import MemberScores
from zoo.metrics.selection import Truth
from zoo.onnx_limits import NEWEST_IR

if TYPE_CHECKING:
    from lightgbm import Booster
    from onnx import ModelProto

# Pairs to fit to: some hundred megabytes of features.
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
OPSET = 15
ML_OPSET = 3
PARITY_LIMIT = 1e-5


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
    ordered = sorted(members.names, key=lambda name: -sum(given.get(name, 0.0) for given in weights.values()))
    filled = fill_members(order_members(members, tuple(ordered)))
    counts = np.ceil(members.truth.sum(axis=0)).astype(np.int64)  # of soft labels, the sum of the shares
    # Of one label per image, all first labels may be true, and there would be nothing to classify.
    top = max(choose_top(filled, members.truth), 2 if exclusive else 1)
    samples = gather_samples(
        filled, members.truth, top, counts, np.array(labels.owners), members.traits, MOST_PAIRS, seed
    )
    return PairStacker(fit_trees(samples, seed), tuple(ordered), top, counts, exclusive)


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
    limit: int,
    seed: int = 0,
) -> Samples:
    """Sample about `limit` pairs: all true ones, and a random part of the others.

    `scores`: (images, members, labels), without NaN; `truth`: (images, labels); the rest as in `compute_features`. The
    weights undo the sampling, so that the trees' probabilities hold for all pairs.
    """
    parts = [slice(start, start + IMAGE_CHUNK) for start in range(0, len(scores), IMAGE_CHUNK)]
    pairs = [find_pairs(scores[part], top, counts) for part in parts]
    true = [truth[part][found] for part, found in zip(parts, pairs, strict=True)]
    positives, total = sum(np.count_nonzero(one) for one in true), sum(len(one) for one in true)
    rate = min(max(limit - positives, 1) / max(total - positives, 1), 1.0)
    random = np.random.default_rng(seed)
    kept = [(one > 0) | (random.random(len(one)) < rate) for one in true]
    features = [
        compute_features(scores[part], rows[keep], columns[keep], counts, groups, traits[part])
        for part, (rows, columns), keep in zip(parts, pairs, kept, strict=True)
    ]
    chosen = np.concatenate([one[keep] for one, keep in zip(true, kept, strict=True)])
    return Samples(np.concatenate(features), chosen, np.where(chosen > 0, 1, 1 / rate).astype(np.float32))


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
    for start in range(0, len(blended), IMAGE_CHUNK):
        part = members.take(np.arange(start, min(start + IMAGE_CHUNK, len(blended))))
        filled = fill_members(order_members(part, stacker.members))
        rows, columns = find_pairs(filled, stacker.top, stacker.counts)
        features = compute_features(filled, rows, columns, stacker.counts, np.array(labels.owners), part.traits)
        scored[start + rows, columns] = predict_trees(stacker.booster, features)
    return share_scores(scored) if stacker.exclusive else scored


def order_members(members: MemberScores, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Return the scores, (images, members, labels), in the given order of members."""
    return members.scores[:, [members.names.index(name) for name in names]].astype(np.float32)


def predict_trees(booster: "Booster", features: Floats) -> Floats:
    """Return the probability of each pair, (pairs,); `features`: (pairs, features)."""
    return np.asarray(booster.predict(features), np.float32)


def export_trees(
    booster: "Booster",
    path: Path,
    counts: Integers,
    names: Sequence[str],
    examples: Floats,
    *,
    exclusive: bool = False,
) -> float:
    """Write the trees as ONNX; return the largest difference of a probability on the examples.

    Graph input `features`, float32 (pairs, features); output `probabilities`, float32 (pairs,). The metadata contains
    as JSON `counts`, the training images per label, `features`, the feature names, and with `exclusive` that an image
    has one label. `examples`: real features, (pairs, features). Raises TrainingError and writes no file if ONNX Runtime
    differs by more than 1e-5.
    """
    import onnx
    import onnxruntime

    graph = convert_trees(booster, len(names))
    notes = {"counts": counts.tolist(), "features": list(names), **({"exclusive": True} if exclusive else {})}
    onnx.helper.set_model_props(graph, {key: json.dumps(note) for key, note in notes.items()})
    with replace_file(path) as temporary:
        onnx.save(graph, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        (answer,) = session.run(["probabilities"], {"features": examples})
        parity = float(np.abs(answer - predict_trees(booster, examples)).max())
        if not parity <= PARITY_LIMIT:
            raise TrainingError(
                f"{path.name}: found a difference of {parity:.1e} to LightGBM on {len(examples)} pairs; "
                f"wanted at most {PARITY_LIMIT:.0e}"
            )
    return parity


def convert_trees(booster: "Booster", features: int) -> "ModelProto":
    """Convert trees to an ONNX graph: one TreeEnsembleRegressor for their sum, then a sigmoid."""
    import onnx
    from onnx import TensorProto, helper
    from onnxmltools.convert import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    converted = convert_lightgbm(
        _make_regression(booster),
        name="trees",
        initial_types=[("features", FloatTensorType([None, features]))],
        target_opset=OPSET,
    )
    (trees,) = [node for node in converted.graph.node if node.op_type == "TreeEnsembleRegressor"]
    trees.input[:], trees.output[:] = ["features"], ["sums"]
    nodes = [
        trees,
        helper.make_node("Sigmoid", ["sums"], ["chances"]),
        helper.make_node("Reshape", ["chances", "flat"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["pairs", features])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["pairs"])],
        [helper.make_tensor("flat", TensorProto.INT64, [1], [-1])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=NEWEST_IR, producer_name="vitrine")
    onnx.checker.check_model(model)
    return model


def _make_regression(booster: "Booster") -> "Booster":
    """Return the same trees as a regression, with thresholds rounded down to float32.

    A regression, because ONNX Runtime treats a binary classifier as one of votes if all its leaves are positive.
    Rounding down keeps the result of `x <= threshold` for every float32 x.
    """
    import lightgbm

    text = re.sub(r"(?<=\nobjective=)(binary sigmoid:1|cross_entropy)(?=\n)", "regression", booster.model_to_string())
    text = text.replace("\n[objective: cross_entropy]\n", "\n[objective: regression]\n")
    # The sizes of the trees in bytes change; without them, LightGBM reads the whole text.
    text = re.sub(r"(?<=\n)tree_sizes=.*\n", "", text)
    return lightgbm.Booster(model_str=re.sub(r"(?<=\nthreshold=).+", _round_down, text))


def _round_down(thresholds: "re.Match[str]") -> str:
    exact = np.array(thresholds[0].split(), np.float64)
    near = exact.astype(np.float32)
    lower = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
    return " ".join(repr(float(one)) for one in lower)
