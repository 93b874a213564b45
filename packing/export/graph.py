"""Where the parts of an exported graph are: the preparation of the picture, the first layers, the last step."""

from itertools import islice

import onnx
from onnx import numpy_helper

LAYERS = ("Conv", "Gemm", "MatMul")


def list_layers(graph: onnx.GraphProto, count: int) -> list[str]:
    """The names of the first `count` nodes that have weights."""
    return list(islice((node.name for node in graph.node if node.op_type in LAYERS), count))


def find_first_layer(graph: onnx.GraphProto) -> onnx.NodeProto:
    """The first node that has weights."""
    layer: onnx.NodeProto = next(node for node in graph.node if node.op_type in LAYERS)
    return layer


def list_ending(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The last sigmoid and what comes after it, in their order."""
    sigmoids = [place for place, node in enumerate(graph.node) if node.op_type == "Sigmoid"]
    return list(graph.node[sigmoids[-1] :])


def list_sources(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that a value is made by, in their order."""
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
    """Turn each mean over height and width, of squeeze-and-excitation or before a head, into GlobalAveragePool.

    ONNX Runtime keeps pictures in blocks of channels, which GlobalAveragePool reads and ReduceMean does not: each mean
    costs a copy of all that goes in. In int8 it has only the former. Changes `graph` in place; returns how many there
    were.
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
    """Take out the tensors that no node reads any more, of which ONNX Runtime would warn."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
