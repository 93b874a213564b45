"""fp32 ONNX to int8 for the CPU: static quantization with ranges from real images, in QDQ form.

Activations are uint8, weights int8 of 7 bits, a scale a channel: processors without VNNI add two products in 16 bits,
which 8 bits would overflow. Narrow groups are joined first, which leaves the answer as it is and without which ONNX
Runtime's kernels gain less.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from packing.export.graph import drop_unused, find_first_layer, list_ending, list_layers, list_sources

# A group of four channels fills an eighth of what the integer kernels take at a time; zeros in the rest are free.
GROUP_WIDTH = 32
# How many of the first layers stay in fp32, tried in turn until the loss is small enough. The first is as fast so; the
# next ones are what costs most F2, above all depthwise ones, whose channels differ in range.
KEPT = (1, 3, 6)


def quantize_graph(path: Path, out: Path, batches: Sequence[NDArray[np.uint8]], kept: int) -> None:
    """Write the int8 form of the graph at `path` to `out`; `batches` (images, height, width, 3) give the ranges.

    All up to the normalisation, the first `kept` layers, and all from the last sigmoid on stay in fp32.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared)
        widen_groups(graph.graph)
        drop_unused(graph.graph)
        onnx.save(graph, prepared)
        ends = list_sources(graph.graph, find_first_layer(graph.graph).input[0]) + list_ending(graph.graph)
        quantize_static(
            prepared,
            out,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=[*(node.name for node in ends), *list_layers(graph.graph, kept)],
        )


def widen_groups(graph: onnx.GraphProto) -> None:
    """Join the groups of each grouped convolution until they are 32 channels wide; what joins them are weights of 0.

    The answer stays the same. Depthwise convolutions, which have kernels of their own, stay as they are.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type != "Conv" or "group" not in attributes or node.input[1] not in weights:
            continue
        narrow = onnx.numpy_helper.to_array(weights[node.input[1]])  # (outputs, channels of a group, height, width)
        groups, width = attributes["group"].i, narrow.shape[1]
        fitting = [many for many in range(2, groups + 1) if groups % many == 0 and many * width <= GROUP_WIDTH]
        if width == 1 or not fitting:
            continue
        joined = max(fitting)
        wide = np.zeros((len(narrow), joined * width, *narrow.shape[2:]), narrow.dtype)
        for output, kernel in enumerate(narrow):
            place = output // (len(narrow) // groups) % joined
            wide[output, place * width : (place + 1) * width] = kernel
        name = f"{node.name}_wide"
        graph.initializer.append(onnx.numpy_helper.from_array(wide, name))
        node.input[1] = name
        attributes["group"].i = groups // joined


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Sequence[NDArray[np.uint8]]) -> None:
        self._rest = iter(batches)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._rest, None)
        return None if batch is None else {"image": batch, "views": np.zeros(1, np.int64)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
