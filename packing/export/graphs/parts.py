"""Parts of an exported graph: the preparation of the image, the first layers, what follows the network's output."""

from collections.abc import Mapping
from itertools import islice

import onnx
from onnx import numpy_helper

from inference.basics.errors import ExportError
from inference.manifest.task import Activation

LAYERS = ("Conv", "Gemm", "MatMul")
LOGITS = "logits"  # name of the network's output, before the activation
KINDS: Mapping[Activation, str] = {"sigmoid": "Sigmoid", "softmax": "Softmax"}


def list_layers(graph: onnx.GraphProto, count: int) -> list[str]:
    """Return the names of the first `count` nodes that have weights."""
    return list(islice((node.name for node in graph.node if node.op_type in LAYERS), count))


def find_first_layer(graph: onnx.GraphProto) -> onnx.NodeProto:
    """Return the first node that has weights. Raises ExportError: there is none."""
    layer: onnx.NodeProto | None = next((node for node in graph.node if node.op_type in LAYERS), None)
    if layer is None:
        raise ExportError(f"the graph has no layer with weights; wanted {', '.join(LAYERS)}")
    return layer


def name_logits(graph: onnx.GraphProto, scores: str, activation: Activation) -> None:
    """Name the network's output `logits`; `scores`: the name of the value after the activation; changes `graph`.

    Raises ExportError: the value before `scores` is not the activation.
    """
    if activation == "identity":
        rename_value(graph, scores, LOGITS)
        return
    maker = next(node for node in graph.node if scores in node.output)
    if maker.op_type != KINDS[activation]:
        raise ExportError(f"the graph ends in {maker.op_type}; wanted {KINDS[activation]}, the activation of the task")
    rename_value(graph, maker.input[0], LOGITS)


def rename_value(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value between nodes; changes `graph`."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in graph.value_info:
        if value.name == old:
            value.name = new


def list_ending(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that compute the graph's output from the logits, in order: the activation, the mean over views.

    Raises ExportError: no value is named `logits`.
    """
    network = {node.name for node in list_sources(graph, LOGITS)}
    if not network:
        raise ExportError(f"the graph has no value `{LOGITS}`; export it again")
    return [node for node in list_sources(graph, graph.output[0].name) if node.name not in network]


def list_sources(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """Return the nodes that compute a value, in order."""
    makers = {output: node for node in graph.node for output in node.output}
    pending, found = [name], set()
    while pending:
        maker = makers.get(pending.pop())
        if maker is not None and maker.name not in found:
            found.add(maker.name)
            pending += maker.input
    return [node for node in graph.node if node.name in found]


SPACE = [2, 3]  # height and width of (batch, channels, height, width)


def pool_globally(graph: onnx.ModelProto) -> int:
    """Replace each mean over height and width (squeeze-and-excitation, before a head) by GlobalAveragePool.

    ONNX Runtime stores images in blocks of channels, which GlobalAveragePool reads directly; ReduceMean first copies
    the whole input. In int8 only GlobalAveragePool is available. Changes `graph` in place; returns the number replaced.
    """
    constants = {one.name: one for one in graph.graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.graph.value_info}
    replaced = 0
    for node in graph.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
            continue
        axes = numpy_helper.to_array(constants[node.input[1]]).ravel()
        keeps = all(attribute.i for attribute in node.attribute if attribute.name == "keepdims")
        if keeps and ranks.get(node.input[0]) == 4 and sorted(int(axis) % 4 for axis in axes) == SPACE:
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
            replaced += 1
    drop_unused(graph.graph)
    return replaced


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the tensors that no node reads, because ONNX Runtime warns about them."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
