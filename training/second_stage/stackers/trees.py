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
from inference.ensemble.pairs import Floats, Integers, compute_features, find_pairs
from inference.manifest.labels import Labels
from training.second_stage.member_scores import MemberScores
from zoo.onnx_limits import NEWEST_IR

if TYPE_CHECKING:
    from lightgbm import Booster
    from onnx import ModelProto


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


def fit_pairs(
    evidence: MemberScores, labels: Labels, weights: Mapping[str, Mapping[str, float]], seed: int
) -> PairStacker:
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
    stacker: PairStacker, evidence: MemberScores, labels: Labels, blended: NDArray[np.float32]
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


def order_members(evidence: MemberScores, members: tuple[str, ...]) -> NDArray[np.float32]:
    """The scores, (images, members, labels), of members in another order."""
    return evidence.scores[:, [evidence.members.index(name) for name in members]].astype(np.float32)


COVERED = 0.995
# Pairs that are compared with all labels of their image at a time, and images whose features are computed at a time.
PAIR_CHUNK = 4096
IMAGE_CHUNK = 1024
# Few and small trees: on met96, more rounds and more leaves gained nothing on images that they had not seen.
ROUNDS = 90
SETTINGS = {
    "objective": "binary",
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
class Samples:
    """Pairs to fit trees to.

    `features`: (pairs, features); `truth`: whether the label is the image's, (pairs,); `weights`: how many pairs each
    stands for, (pairs,).
    """

    features: Floats
    truth: NDArray[np.bool_]
    weights: Floats


def choose_top(scores: Floats, truth: NDArray[np.bool_]) -> int:
    """The smallest number of labels of each member with which COVERED of the true labels become pairs.

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
    truth: NDArray[np.bool_],
    top: int,
    counts: Integers,
    groups: Integers,
    traits: Floats,
    limit: int,
    seed: int = 0,
) -> Samples:
    """About `limit` pairs of the images: all true ones, and of the others a random part, each with its weight.

    `scores`: (images, members, labels), without NaN; `truth`: (images, labels); the rest as in `compute_features`. The
    weights make the sample's chances those of all pairs.
    """
    parts = [slice(start, start + IMAGE_CHUNK) for start in range(0, len(scores), IMAGE_CHUNK)]
    pairs = [find_pairs(scores[part], top, counts) for part in parts]
    true = [truth[part][found] for part, found in zip(parts, pairs, strict=True)]
    positives, total = sum(int(one.sum()) for one in true), sum(len(one) for one in true)
    rate = min(max(limit - positives, 1) / max(total - positives, 1), 1.0)
    random = np.random.default_rng(seed)
    kept = [one | (random.random(len(one)) < rate) for one in true]
    features = [
        compute_features(scores[part], rows[keep], columns[keep], counts, groups, traits[part])
        for part, (rows, columns), keep in zip(parts, pairs, kept, strict=True)
    ]
    chosen = np.concatenate([one[keep] for one, keep in zip(true, kept, strict=True)])
    return Samples(np.concatenate(features), chosen, np.where(chosen, 1, 1 / rate).astype(np.float32))


def fit_trees(samples: Samples, seed: int = 0, threads: int = 0) -> "Booster":
    """Trees that tell an image's labels from others; the same for the same samples and seed.

    `threads`: 0 for all cores. Raises TrainingError where all pairs are true, or none is.
    """
    import lightgbm

    found = int(samples.truth.sum())
    if found in (0, len(samples.truth)):
        raise TrainingError(
            f"tree stacker: {found} of {len(samples.truth)} pairs are true; wanted some that are and some that are not"
        )
    settings = {**SETTINGS, "seed": seed, "num_threads": threads}
    data = lightgbm.Dataset(samples.features, samples.truth, weight=samples.weights, params=settings)
    return lightgbm.train(settings, data, ROUNDS)


def predict_trees(booster: "Booster", features: Floats) -> Floats:
    """The chance of each pair, (pairs,); `features`: (pairs, features)."""
    return np.asarray(booster.predict(features), np.float32)


def export_trees(booster: "Booster", path: Path, counts: Integers, names: Sequence[str], examples: Floats) -> float:
    """Write the trees as ONNX and return the largest difference of a chance on the examples.

    Input `features`, float32 (pairs, features); output `probabilities`, float32 (pairs,). The file's metadata has, as
    JSON, `counts`, the training images of each label, and `features`, their names. `examples`: (pairs, features), real
    ones. Raises TrainingError, and leaves no file, where ONNX Runtime differs by more than 1e-5.
    """
    import onnx
    import onnxruntime

    graph = convert_trees(booster, len(names))
    onnx.helper.set_model_props(graph, {"counts": json.dumps(counts.tolist()), "features": json.dumps(list(names))})
    with replace_file(path) as temporary:
        onnx.save(graph, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        (answer,) = session.run(["probabilities"], {"features": examples})
        parity = float(np.abs(answer - predict_trees(booster, examples)).max())
        if not parity <= PARITY_LIMIT:
            raise TrainingError(
                f"{path.name}: differs from its trees by {parity:.1e} on {len(examples)} pairs, "
                f"wanted at most {PARITY_LIMIT:.0e}"
            )
    return parity


def convert_trees(booster: "Booster", features: int) -> "ModelProto":
    """The ONNX graph of trees: their sum by one TreeEnsembleRegressor, and its sigmoid."""
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
    """The same trees as a regression, their thresholds such that float32 holds them.

    As a regression, because ONNX Runtime takes a binary classifier whose leaves are all positive for one of votes. A
    threshold is rounded down: `x <= threshold` is then as true as before of every float32 x.
    """
    import lightgbm

    text = booster.model_to_string().replace("\nobjective=binary sigmoid:1\n", "\nobjective=regression\n")
    # Without the sizes of its trees in bytes, which change, the text is read from its first to its last.
    text = re.sub(r"(?<=\n)tree_sizes=.*\n", "", text)
    return lightgbm.Booster(model_str=re.sub(r"(?<=\nthreshold=).+", _round_down, text))


def _round_down(thresholds: "re.Match[str]") -> str:
    exact = np.array(thresholds[0].split(), np.float64)
    near = exact.astype(np.float32)
    lower = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
    return " ".join(repr(float(one)) for one in lower)
