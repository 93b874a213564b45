"""Conversion of ONNX from fp32 to fp16: half the memory, and several times the speed on GPUs with cores for it."""

import copy
import warnings
from collections.abc import Sequence

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from packing.export.graphs.parts import LOGITS, find_first_layer, list_ending, list_sources


def halve_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model in fp16; the normalisation of the image and what follows the logits stay in fp32.

    The operators that the converter blocks by default stay in fp32 too: they have no fp16 kernel or lose too much.
    Weights beyond the range of fp16 are clipped to it; the parity shows whether that matters.
    """
    halved: onnx.ModelProto = copy.deepcopy(model)
    graph = halved.graph
    image = find_first_layer(graph).input[0]
    preparation, ending = copy.deepcopy(list_sources(graph, image)), copy.deepcopy(list_ending(graph))
    inputs, outputs = list(graph.input), list(graph.output)
    # The converter gets only the nodes between: for nodes that it should keep, it rounds the outputs to fp16 and back.
    for node in (*preparation, *ending):
        graph.node.remove(node)
    entries = list_entries(graph, preparation, image)
    known = [value for value in graph.value_info if value.name not in (*entries, LOGITS)]
    del graph.value_info[:], graph.output[:]
    graph.value_info.extend(known)
    for name, ends in (*((entry, graph.input) for entry in entries), (LOGITS, graph.output)):
        ends.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one per tensor with a clipped weight
        halved = convert_float_to_float16(halved, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST)
    graph = halved.graph
    del graph.input[:], graph.output[:], graph.value_info[:]  # value_info has fp16 types for the preparation
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    graph.node.extend([*preparation, *ending])
    OnnxModel(halved).topological_sort()
    return halved


def list_entries(graph: onnx.GraphProto, preparation: Sequence[onnx.NodeProto], image: str) -> list[str]:
    """Return the values of `preparation` that the rest of a graph reads in fp16: `image`, and others that are floats.

    A network of two scales reads the normalised image twice.
    """
    floats = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    read = {name for node in graph.node for name in node.input} & (floats | {image})
    return [output for node in preparation for output in node.output if output in read]
