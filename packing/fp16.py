"""fp32 ONNX to fp16: half the memory and, where the GPU has cores for it, a multiple of the speed."""

import warnings

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from packing.graph import list_ending, list_preparation


def halve_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in fp16; the output, the last sigmoid and the normalisation of the picture stay in fp32.

    So do the operators that the converter blocks by default, which have no fp16 kernel or lose too much. Weights
    beyond the range of fp16 are cut to it: whether that matters, parity says.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each tensor with a weight that is cut
        halved: onnx.ModelProto = convert_float_to_float16(
            graph,
            keep_io_types=True,
            op_block_list=DEFAULT_OP_BLOCK_LIST,
            node_block_list=[*list_preparation(graph.graph), *list_ending(graph.graph)],
        )
    return halved
