"""Changes of the graph, compared with ONNX Runtime's output for the original graph."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from onnx import TensorProto, helper

from packing.export.export_zoo import KernelNetwork, trace_graph
from packing.export.graph import pool_globally

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


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


def test_squeeze_and_excitation_is_pooled_globally_and_matches_torch() -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=5).eval()
    model: Any = SimpleNamespace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    whole = KernelNetwork(network, model).eval()
    graph = trace_graph(whole, 64)
    onnx.checker.check_model(graph)
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("GlobalAveragePool") > 1 and "ReduceMean" not in kinds
    used = {name for node in graph.graph.node for name in node.input}
    assert {one.name for one in graph.graph.initializer} <= used, "an unused tensor was not removed"
    with torch.inference_mode():
        wanted = whole(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(run(graph, {"image": IMAGES}), wanted, rtol=0, atol=1e-6)


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
