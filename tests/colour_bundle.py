"""A bundle of another competition, made by hand: its one model sees only the mean colour of an image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME
from inference.manifest.task import Activation, Task
from packing.pack.write_bundle import write_script
from tests.conftest import write_rows

NAMES = ('red, "the" colour', "Зелёный", "blue")
SHARPNESS = 8.0
"""Factor of a mean colour, from 0 to 1, before the activation of a classifier."""


def write_model(path: Path, weights: np.ndarray, activation: Activation) -> None:
    """Write a model in the form of an export: the mean colour times `weights`, float32 (3, labels)."""
    last = {"softmax": "Softmax", "sigmoid": "Sigmoid", "identity": "Identity"}[activation]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["colour"], keepdims=0),
        helper.make_node("Div", ["colour", "full"], ["share"]),
        helper.make_node("MatMul", ["share", "weights"], ["logits"]),
        helper.make_node(last, ["logits"], ["probabilities"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel().tolist()),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])
    views = helper.make_tensor_value_info("views", TensorProto.INT64, ["v"])
    scores = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", weights.shape[1]])
    graph = helper.make_graph(nodes, "colour", [image, views], [scores], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"cuts": '["identity"]', "merge": "mean"})
    onnx.save(model, path)


def write_bundle(folder: Path, task: dict[str, Any], names: tuple[str, ...] = NAMES, **runtime: Any) -> Path:
    """Write the dataset folder of a bundle for a task with these labels; return it."""
    folder.mkdir()
    write_rows(folder / "labels.csv", ("label_id", "label_name"), list(enumerate(names)))
    kind, form = task["type"], task["submission"]
    one = np.full((3, 1), 1 / 3, np.float32)  # the mean of all colours
    weights = np.eye(3, dtype=np.float32) * SHARPNESS if len(names) == 3 else one
    write_model(folder / "colour.onnx", weights, Task(type=kind).activation)
    write_script(folder / "inference.pyz")
    rule = {"list": "ranked"}.get(form["layout"], "number" if form["content"] == "number" else "probabilities")
    exported = {"file": "colour.onnx", "sha256": hash_file(folder / "colour.onnx"), "opset": 18, "parity": 0}
    model = {
        **{"name": "colour", "architecture": "x", "group": "labels", "image_size": 8, "interpolation": "bilinear"},
        **{"mean": [0, 0, 0], "std": [1, 1, 1], "views": ["identity"]},
        "onnx": {"fp32": {**exported, "source": "0" * 64}},
    }
    manifest = {
        "task": task,
        "labels": {"file": "labels.csv", "sha256": hash_file(folder / "labels.csv"), "groups": {"labels": ""}},
        "models": [model],
        "ensemble": {"weights": {"labels": {"colour": 1}}},
        "decision": {
            **{"groups": {}, "prior": {}, "rule": rule},
            "prior_scores": [0.5, 0.3, 0.2][: len(names)],
            "fitted": {"normalise": bool(form.get("sum_to_one"))},
        },
        "runtime": {
            "wheels": [],
            "script": {"file": "inference.pyz", "sha256": hash_file(folder / "inference.pyz")},
            **{"batch_size": 2, **runtime},
        },
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    return folder


def paint(path: Path, seed: int) -> np.ndarray:
    """Write an image of one random colour; return its mean colour, from 0 to 1, (3,)."""
    colour = np.random.default_rng(seed).integers(0, 256, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), tuple(colour.tolist())).save(path, format="PNG")
    return colour / 255


def find_softmax(colours: np.ndarray) -> np.ndarray:
    """Return what the model should say of mean colours, (images, 3)."""
    odds = np.exp(SHARPNESS * colours)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
