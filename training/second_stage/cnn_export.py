"""The CNN stacker as an ONNX graph, measured against torch."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from inference.errors import ExportError
from inference.files import replace_file
from inference.members import fill_members
from training.second_stage.cnn import CnnStacker, Scores, predict_cnn

OPSET = 18
NEWEST_IR = 10  # the newest that every ONNX Runtime since 1.20 loads
PARITY_LIMIT = 1e-4
MOST_AT_ONCE = 65536


def export_cnn(stacker: CnnStacker, path: Path, examples: Scores) -> float:
    """Write the ONNX graph, `scores` to `probabilities`, any number of images; returns its largest difference to torch.

    `examples`: real scores (images, members, labels) to measure on. Raises ExportError, and leaves no file, where they
    differ by more than 1e-4; TrainingError as `predict_cnn`.
    """
    wanted = predict_cnn(stacker, examples)
    graph = trace_cnn(stacker)
    with replace_file(path) as temporary:
        onnx.save(graph, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, {"scores": fill_members(examples.astype(np.float32))})
        parity = float(np.abs(answer - wanted).max(initial=0))
        if not parity <= PARITY_LIMIT:
            raise ExportError(
                f"{path.name}: its ONNX differs from torch by {parity:.1e} on {len(examples)} images, "
                f"wanted at most {PARITY_LIMIT:.0e}"
            )
    return parity


def trace_cnn(stacker: CnnStacker) -> onnx.ModelProto:
    """The ONNX graph of a stacker, the number of images left open; raises ExportError where torch cannot make it."""
    example = torch.full((2, stacker.members, stacker.labels), 0.5)
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                stacker.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes={"scores": {0: torch.export.Dim("images", min=1, max=MOST_AT_ONCE)}},
                input_names=["scores"],
                output_names=["probabilities"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"torch cannot export this stacker: {str(error).splitlines()[0]}") from error
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    graph.ir_version = min(graph.ir_version, NEWEST_IR)
    # The exporter notes stack traces: paths of this machine, and much that the kernel would only read.
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
