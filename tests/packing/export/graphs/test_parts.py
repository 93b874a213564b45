"""Changes of the graph, compared with ONNX Runtime's output for the original graph."""

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from onnx import TensorProto, helper

from inference.basics.errors import ExportError
from inference.manifest.task import Activation
from packing.export.graphs.form import Form
from packing.export.graphs.fp16 import halve_graph
from packing.export.graphs.int8 import quantize_graph
from packing.export.graphs.network import build_graph
from packing.export.graphs.parts import list_ending, name_logits, pool_globally

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
FEEDS = {"image": IMAGES, "views": np.array([0])}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def make_graph(axes: list[int], shape: list[int], keepdims: int) -> onnx.ModelProto:
    """Make a graph with the mean over `axes` of a rectified input."""
    kept = [1 if place in {axis % len(shape) for axis in axes} else size for place, size in enumerate(shape)]
    output = kept if keepdims else [size for size, one in zip(shape, kept, strict=True) if one == size]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["y"], keepdims=keepdims),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)],
        value_info=[helper.make_tensor_value_info("r", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(graph: onnx.ModelProto, feeds: dict[str, Any]) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, feeds)
    return np.asarray(answer)


class Gated(torch.nn.Module):
    """A network with SiLU and a sigmoid gate inside, as in squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.silu(self.stem(images)).mean((2, 3))
        answer: torch.Tensor = self.head(pooled * torch.sigmoid(self.gate(pooled)))
        return answer


@functools.cache
def trace(architecture: str, activation: Activation) -> tuple[torch.nn.Module, onnx.ModelProto]:
    """Return a network whose outputs differ between images, and its graph."""
    torch.manual_seed(0)
    network = Gated() if architecture == "gated" else timm.create_model(architecture, num_classes=5)
    head = network.head if isinstance(network, Gated) else network.get_classifier()
    with torch.no_grad():
        head.weight.mul_(40)
    form = Form((64, 64), (64, 64), MEAN, STD, 5, activation, ("identity", "hflip"))
    return network.eval(), build_graph(network.eval(), form)


def ask_torch(network: torch.nn.Module, activation: Activation) -> np.ndarray:
    """Return the scores in double precision; softmax and sigmoid by their definitions."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        doubled = copy.deepcopy(network).double()
        logits: np.ndarray = doubled((torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True) if activation == "softmax" else logits


def test_squeeze_and_excitation_is_pooled_globally_and_matches_torch() -> None:
    network, graph = trace("test_efficientnet", "softmax")
    onnx.checker.check_model(graph)
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("GlobalAveragePool") > 1 and kinds.count("ReduceMean") == 1, "the other mean is over views"
    used = {name for node in graph.graph.node for name in node.input}
    assert {one.name for one in graph.graph.initializer} <= used, "an unused tensor was not removed"
    wanted = ask_torch(network, "softmax")
    assert wanted.std(axis=0).max() > 0.01, "the scores must differ between images"
    np.testing.assert_allclose(run(graph, FEEDS), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "activation", "kinds"),
    [
        ("test_efficientnet", "softmax", ["Softmax"]),
        ("gated", "sigmoid", ["Sigmoid"]),
        ("gated", "identity", []),
    ],
)
def test_a_graph_is_cut_at_the_logits_not_at_an_inner_sigmoid(
    architecture: str, activation: Activation, kinds: list[str], tmp_path: Path
) -> None:
    network, graph = trace(architecture, activation)
    assert sum(node.op_type == "Sigmoid" for node in graph.graph.node) > len(kinds), "sigmoids inside"
    ending = list_ending(graph.graph)
    assert sorted(node.op_type for node in ending) == sorted([*kinds, "Shape", "Concat", "Reshape", "ReduceMean"])
    assert [node.op_type for node in ending if "logits" in node.input] == (kinds or ["Reshape"])
    wanted = ask_torch(network, activation)

    half = onnx.shape_inference.infer_shapes(halve_graph(graph), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in (*half.graph.value_info, *half.graph.output)}
    halves = {types[node.output[0]] for node in half.graph.node if node.op_type == "Sigmoid" and not is_last(node)}
    assert halves == {TensorProto.FLOAT16}, "inner sigmoids are in fp16"
    lasts = [types[node.output[0]] for node in half.graph.node if node.name in {one.name for one in ending}]
    assert set(lasts) == {TensorProto.FLOAT, TensorProto.INT64}, "the activation and the mean are in fp32"
    answer = run(half, FEEDS)
    np.testing.assert_allclose(answer, wanted, rtol=0, atol=0.02)
    if activation == "softmax":
        np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=0, atol=1e-6)

    onnx.save(graph, tmp_path / "fp32.onnx")
    quantize_graph(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [IMAGES], 1)
    small = onnx.load(tmp_path / "int8.onnx")
    makers = {output: node for node in small.graph.node for output in node.output}
    for node in small.graph.node:
        is_quantized = any(makers[name].op_type == "DequantizeLinear" for name in node.input if name in makers)
        assert is_quantized or node.op_type != "Gemm", "the head is in int8"
    np.testing.assert_allclose(run(small, FEEDS), wanted, rtol=0, atol=0.3)


def is_last(node: onnx.NodeProto) -> bool:
    return any(name.startswith("logits") for name in node.input)


def test_a_graph_that_ends_in_another_operation_is_refused() -> None:
    graph = make_graph([2, 3], [2, 4, 5, 6], 1).graph
    with pytest.raises(ExportError) as error:
        name_logits(graph, "y", "softmax")
    assert str(error.value) == "the graph ends in ReduceMean; wanted Softmax, the activation of the task"
    with pytest.raises(ExportError, match=r"^the graph has no value `logits`; export it again$"):
        list_ending(graph)


@pytest.mark.parametrize(
    ("axes", "shape", "keepdims", "replaced"),
    [
        ([2, 3], [2, 4, 5, 6], 1, 1),
        ([-1, -2], [2, 4, 5, 6], 1, 1),
        ([2, 3], [2, 4, 5, 6], 0, 0),
        ([1, 2], [2, 4, 5, 6], 1, 0),
        ([3], [2, 4, 5, 6], 1, 0),
        ([-1, -2], [4, 5, 6], 1, 0),
    ],
)
def test_only_a_mean_over_height_and_width_is_replaced_and_the_output_stays(
    axes: list[int], shape: list[int], keepdims: int, replaced: int
) -> None:
    graph = make_graph(axes, shape, keepdims)
    feeds = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    before = run(graph, feeds)
    assert pool_globally(graph) == replaced
    onnx.checker.check_model(graph)
    np.testing.assert_allclose(run(graph, feeds), before, rtol=0, atol=1e-6)
