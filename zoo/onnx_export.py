"""A torch module as an ONNX graph that every ONNX Runtime since 1.20 loads."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator

import onnx
import torch

from inference.basics.errors import ExportError, VitrineError
from zoo.onnx_limits import NEWEST_IR, OPSET

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
MOST_SAID = 300  # characters of a library's message
FUSED = "fused_attn"  # timm's switch of attention in one operator


def trace_module(module: torch.nn.Module, example: torch.Tensor, name: str, answer: str, most: int) -> onnx.ModelProto:
    """Trace a module of one input and one output; the size of their first dimension stays open, from 1 to `most`.

    `example`: an input of two rows. `name`, `answer`: names of the input, which is the argument of `forward`, and of
    the output. A network of timm that fails is tried again without fused attention, of which torch cannot trace some.
    Raises ExportError with the cause where torch cannot trace it.
    """
    module.eval()
    graph = _trace_or_retry(module, example, name, answer, most)
    graph.ir_version = min(graph.ir_version, NEWEST_IR)
    # The exporter writes stack traces: paths of this machine, and megabytes that the kernel would only read.
    for owner in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.functions):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")
    return graph


def describe_fault(error: Exception) -> str:
    """Return the message of an error of ours, or the cause and type of a library's error; in one line."""
    if isinstance(error, VitrineError):
        return str(error)
    return "out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {find_cause(error)}"


def find_cause(error: BaseException) -> str:
    """Return what the innermost error says in its first paragraph, in one line, without colours of a terminal."""
    seen: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in seen:
        seen.append(inner)
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)
    # Some end in an error without a text.
    spoken = next((one for one in reversed(seen) if str(one).strip()), error)
    paragraph = COLOUR.sub("", str(spoken)).strip().partition("\n\n")[0]
    said = " ".join(paragraph.split()) or type(spoken).__name__
    return said if len(said) <= MOST_SAID else f"{said[:MOST_SAID].rstrip()}…"


def _trace_or_retry(
    module: torch.nn.Module, example: torch.Tensor, name: str, answer: str, most: int
) -> onnx.ModelProto:
    try:
        return _trace(module, example, name, answer, most)
    except Exception as error:  # torch and the exporter raise dozens of types
        with _split_attention(module) as found, contextlib.suppress(Exception):
            if found:
                return _trace(module, example, name, answer, most)
        raise ExportError(f"torch cannot export this network: {find_cause(error)}") from error


def _trace(module: torch.nn.Module, example: torch.Tensor, name: str, answer: str, most: int) -> onnx.ModelProto:
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes={name: {0: torch.export.Dim("batch", min=1, max=most)}},
            input_names=[name],
            output_names=[answer],
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    return graph


@contextlib.contextmanager
def _split_attention(module: torch.nn.Module) -> Iterator[bool]:
    """Switch fused attention off in all layers of timm; yield whether any had it on."""
    layers = [layer for layer in module.modules() if getattr(layer, FUSED, False)]
    for layer in layers:
        setattr(layer, FUSED, False)
    try:
        yield bool(layers)
    finally:
        for layer in layers:
            setattr(layer, FUSED, True)


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
