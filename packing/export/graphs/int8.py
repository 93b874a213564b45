"""Conversion of ONNX from fp32 to int8 for the CPU: static quantization with ranges from real images, in QDQ form.

Activations are uint8; weights are int8 of 7 bits with one scale per channel, because processors without VNNI add two
products in 16 bits, which 8 bits would overflow. Narrow groups are joined first: the output stays the same, and ONNX
Runtime's kernels gain more.
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

from packing.export.graphs.parts import drop_unused, find_first_layer, list_ending, list_layers, list_sources

# The integer kernels read 32 channels at a time: a group of four uses an eighth, and zeros in the rest cost no time.
GROUP_WIDTH = 32
# Numbers of first layers to keep in fp32, tried in turn until the loss is small enough. The first layer is as fast in
# fp32. The next ones lose the most, especially depthwise ones, whose channels differ in range.
KEPT = (1, 3, 6)


def quantize_graph(path: Path, out: Path, batches: Sequence[NDArray[np.uint8]], kept: int, view: int = 0) -> None:
    """Convert the graph at `path` to int8 and write it to `out`; `batches` (images, height, width, 3) give the ranges.

    `view`: index of the view in which the graph sees them. In fp32 stay: everything up to the normalisation, the first
    `kept` layers, what follows the logits.
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
            _Batches(batches, view),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=[*(node.name for node in ends), *list_layers(graph.graph, kept)],
        )


def widen_groups(graph: onnx.GraphProto) -> None:
    """Join the groups of each grouped convolution to groups of up to 32 channels, filled with weights of 0.

    The output stays the same. Depthwise convolutions have special kernels and are not changed.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type != "Conv" or "group" not in attributes or node.input[1] not in weights:
            continue
        narrow = onnx.numpy_helper.to_array(weights[node.input[1]])  # (outputs, channels per group, height, width)
        groups, width = attributes["group"].i, narrow.shape[1]
        fitting = [count for count in range(2, groups + 1) if groups % count == 0 and count * width <= GROUP_WIDTH]
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
    def __init__(self, batches: Sequence[NDArray[np.uint8]], view: int) -> None:
        self._rest, self._views = iter(batches), np.array([view])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._rest, None)
        return None if batch is None else {"image": batch, "views": self._views}


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
