"""Export of fitted trees to ONNX."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inference.basics.errors import TrainingError
from inference.basics.files import replace_file
from inference.ensemble.pairs import Floats, Integers
from training.second_stage.stackers.trees import predict_trees
from zoo.onnx_limits import NEWEST_IR

if TYPE_CHECKING:
    from lightgbm import Booster
    from onnx import ModelProto

OPSET = 15
ML_OPSET = 3
PARITY_LIMIT = 1e-5


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
