"""ONNX graphs added to a zoo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference.basics.errors import VitrineError
from tests.packing.add.conftest import Zoo

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
GRAPH: dict[str, Any] = {"file": "net.onnx", "architecture": None, "image_size": 8, "layout": "nhwc", **IMAGENET}


def write_graph(path: Path, dtype: int = TensorProto.FLOAT, last: str = "Identity", batch: int | str = "n") -> Path:
    """Write a graph that returns 3 weighted means of the pixels, with one node of any kind at the end."""
    axes = numpy_helper.from_array(np.array([1, 2]), "axes")
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32), "weights")
    shape = numpy_helper.from_array(np.array([1, 3]), "one_row")
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["cast", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
        helper.make_node(last, ["logits", "one_row"] if last == "Reshape" else ["logits"], ["last"]),
        helper.make_node("Identity", ["last"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("image", dtype, [batch, 8, 8, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 3])],
        [axes, weights, shape],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    proto.producer_name = "keras"
    onnx.save(proto, path)
    return path


def test_a_graph_is_declared_with_its_layout_and_normalisation(zoo: Zoo) -> None:
    write_graph(zoo.home / "net.onnx")
    added = zoo.add(**GRAPH)
    model = zoo.manifest.models[-1]
    assert (model.name, model.architecture, model.layout, model.group) == ("net", "ONNX", "nhwc", "tag")
    assert (model.mean, model.std, model.interpolation) == (IMAGENET["mean"], IMAGENET["std"], "bilinear")
    assert model.checkpoint is not None and model.checkpoint.file == "net.onnx"
    assert added.form.startswith("ONNX graph of keras, opset 18, nhwc, parity ") and added.notes == ()


def test_a_graph_of_bytes_is_not_normalised(zoo: Zoo) -> None:
    write_graph(zoo.home / "net.onnx", TensorProto.UINT8)
    zoo.add(**{**GRAPH, "mean": None, "std": None})
    model = zoo.manifest.models[-1]
    assert model.mean == (0, 0, 0) and model.std == pytest.approx((1 / 255,) * 3)


def test_a_graph_of_scores_has_no_activation(zoo: Zoo) -> None:
    write_graph(zoo.home / "net.onnx", last="Sigmoid")
    zoo.add(**GRAPH, activation="identity")
    assert zoo.manifest.models[-1].activation == "identity"


def test_weights_of_another_file_are_declared_in_one(zoo: Zoo) -> None:
    path = write_graph(zoo.home / "net.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    added = zoo.add(**GRAPH)
    whole = zoo.home / "net.whole.onnx"
    assert added.notes == (f"its weights were in other files; all of it is in {whole} now",)
    entry = zoo.manifest.models[-1].checkpoint
    assert entry is not None and entry.file == "net.whole.onnx" and whole.is_file()


def fix_batch(path: Path) -> None:
    write_graph(path, last="Reshape", batch=1)


def fix_inside(path: Path) -> None:
    write_graph(path, last="Reshape")


def end_in_sigmoid(path: Path) -> None:
    write_graph(path, last="Sigmoid")


def end_in_logarithm(path: Path) -> None:
    write_graph(path, last="Log")


def leave_as_it_is(path: Path) -> None:
    write_graph(path)


def take_bytes(path: Path) -> None:
    write_graph(path, TensorProto.UINT8)


@pytest.mark.parametrize(
    ("write", "changes", "message"),
    [
        (fix_batch, {}, "its batch size is fixed to 1: export it with a dynamic batch axis"),
        (fix_inside, {}, "its batch size is fixed inside of the graph: export it with a dynamic batch axis"),
        (
            end_in_sigmoid,
            {},
            "its output `out` ends in Sigmoid, so that it is a score already; give --activation none",
        ),
        (end_in_logarithm, {}, "returns NaN or infinity for a random image; choose another checkpoint"),
        (
            leave_as_it_is,
            {"layout": None},
            "--layout: missing; wanted nchw (images as (batch, channels, height, width), as torch exports them) or "
            "nhwc (channels last)",
        ),
        (
            leave_as_it_is,
            {"std": None},
            "--mean and --std: missing; wanted those of its training, which an ONNX graph does not hold (ImageNet's: "
            "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225)",
        ),
        (
            take_bytes,
            {},
            "its input is uint8, so that it gets bytes as they are; leave out --mean and --std",
        ),
        (
            leave_as_it_is,
            {"factory": "nets.py:build"},
            "--factory: an ONNX graph is a network already; leave it out",
        ),
    ],
)
def test_a_graph_that_does_not_fit_is_refused(
    write: Callable[[Path], None], changes: dict[str, Any], message: str, zoo: Zoo
) -> None:
    path = zoo.home / "net.onnx"
    write(path)
    before = zoo.path.read_bytes()
    with pytest.raises(VitrineError) as error:
        zoo.add(**{**GRAPH, **changes})
    assert str(error.value) == f"{path}: {message}"
    assert zoo.path.read_bytes() == before


def test_numbers_are_no_probabilities(zoo: Zoo) -> None:
    path = write_graph(zoo.home / "net.onnx")
    with pytest.raises(VitrineError) as error:
        zoo.add(**GRAPH, activation="identity")
    text = str(error.value)
    assert text.startswith(f"{path}: its scores are from -") or text.startswith(f"{path}: its scores are from 0")
    assert text.endswith("; wanted probabilities; give --activation sigmoid or softmax")


def test_a_folded_file_of_a_refused_graph_is_removed(zoo: Zoo) -> None:
    path = write_graph(zoo.home / "net.onnx", last="Sigmoid")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0)
    before = sorted(zoo.home.iterdir())
    with pytest.raises(VitrineError, match=rf"^{path}: its output `out` ends in Sigmoid"):
        zoo.add(**GRAPH)
    assert sorted(zoo.home.iterdir()) == before


def test_the_layout_is_only_for_graphs(zoo: Zoo) -> None:
    with pytest.raises(VitrineError) as error:
        zoo.add(layout="nchw")
    assert str(error.value) == (
        f"{zoo.home / 'net.safetensors'}: --layout: found nchw; it is only for files named *.onnx"
    )
