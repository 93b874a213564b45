"""Parts of an exported graph: the preparation of the image, the first layers, the last step."""

from itertools import islice

import onnx
from onnx import numpy_helper

LAYERS = ("Conv", "Gemm", "MatMul")


def list_layers(graph: onnx.GraphProto, count: int) -> list[str]:
    """Return the names of the first `count` nodes that have weights."""
    return list(islice((node.name for node in graph.node if node.op_type in LAYERS), count))


def find_first_layer(graph: onnx.GraphProto) -> onnx.NodeProto:
    """Return the first node that has weights."""
    layer: onnx.NodeProto = next(node for node in graph.node if node.op_type in LAYERS)
    return layer


def list_ending(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the last sigmoid and the nodes after it, in order."""
    sigmoids = [place for place, node in enumerate(graph.node) if node.op_type == "Sigmoid"]
    return list(graph.node[sigmoids[-1] :])


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
