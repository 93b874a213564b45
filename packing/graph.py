"""Where the parts of an exported graph are: the preparation of the picture, the first layer, the last step."""

from itertools import takewhile

import onnx

LAYERS = ("Conv", "Gemm", "MatMul")


def find_first_layer(graph: onnx.GraphProto) -> str:
    """The name of the first node that has weights; raises StopIteration where none has."""
    return str(next(node.name for node in graph.node if node.op_type in LAYERS))


def list_preparation(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes before the first layer: bytes to numbers, normalised."""
    return [node.name for node in takewhile(lambda node: node.op_type not in LAYERS, graph.node)]


def list_ending(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes that give the graph's outputs: the last sigmoid."""
    outputs = {output.name for output in graph.output}
    return [node.name for node in graph.node if outputs & set(node.output)]
