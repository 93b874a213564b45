"""Where the parts of an exported graph are: the preparation of the picture, the first layers, the last step."""

from itertools import islice

import onnx

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
