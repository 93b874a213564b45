"""A torch module as an ONNX graph that every ONNX Runtime since 1.20 loads."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch

from inference.basics.errors import ExportError
from zoo.onnx_limits import NEWEST_IR, OPSET


def trace_module(module: torch.nn.Module, example: torch.Tensor, name: str, answer: str, most: int) -> onnx.ModelProto:
    """Trace a module of one input and one output; the size of their first dimension stays open, from 1 to `most`.

    `example`: an input of two rows. `name`, `answer`: names of the input, which is the argument of `forward`, and of
    the output. Raises ExportError where torch cannot trace it.
    """
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes={name: {0: torch.export.Dim("batch", min=1, max=most)}},
                input_names=[name],
                output_names=[answer],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"torch cannot export this network: {str(error).splitlines()[0]}") from error
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    graph.ir_version = min(graph.ir_version, NEWEST_IR)
    # The exporter writes stack traces: paths of this machine, and megabytes that the kernel would only read.
    for owner in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.functions):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")
    return graph


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
