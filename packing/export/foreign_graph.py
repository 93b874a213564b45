"""What an ONNX graph made elsewhere takes and returns, checked against its entry in the manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from inference.basics.errors import ExportError
from inference.manifest.model import Model
from zoo.onnx_limits import LARGEST

NEWEST_OPSET = 26
"""Newest opset that the ONNX Runtime of the kernel's wheels loads."""

TYPES: Mapping[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.FLOAT16: np.dtype(np.float16),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
    onnx.TensorProto.UINT8: np.dtype(np.uint8),
}
BYTES = 1 / 255
"""`std` of a model whose graph takes bytes as they are; its `mean` is 0."""
OWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
Dimensions = tuple[int | str, ...]


@dataclass(frozen=True)
class Foreign:
    """A graph of one image and one or more outputs."""

    path: Path
    proto: onnx.ModelProto
    opset: int
    input: str
    """Name of the input."""
    dtype: np.dtype[Any]
    """Of the input."""
    batch: int
    """Images per run: the batch size that the input declares, 1 where that is open."""
    is_fixed: bool
    """The input declares a batch size."""
    session: onnxruntime.InferenceSession
    outputs: Mapping[str, tuple[int, ...]]
    """Name -> shape for a batch of `batch` images, of the outputs that are float tensors."""


def read_foreign(path: Path, model: Model) -> Foreign:
    """Read the graph at `path` and run it once on grey images of the model's size.

    Raises ExportError in one line: it is no ONNX graph, is stored in several files, has another input than the model
    declares, or does not run.
    """
    proto = read_graph(path)
    infos = map(onnx.external_data_helper.ExternalDataInfo, list_external_tensors(proto))
    external = sorted({info.location for info in infos})
    if external:
        raise ExportError(
            f"{path}: stores its weights in {', '.join(external)}; `build_kernel.py add` makes one file of it"
        )
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset > NEWEST_OPSET:
        raise ExportError(
            f"{path}: its opset is {opset}; wanted at most {NEWEST_OPSET}, the newest that the kernel loads"
        )
    value = find_input(path, proto)
    shape = read_shape(value)
    dtype = check_input(path, value, shape, model)
    is_fixed = isinstance(shape[0], int)
    batch = int(shape[0]) if is_fixed else 1
    grey = np.zeros((batch, *lay_out(model)), dtype)
    floats = [output.name for output in proto.graph.output if output.type.tensor_type.elem_type in list(TYPES)[:3]]
    session = open_session(path)
    answers = run(session, path, floats, {value.name: grey})
    outputs = {name: tuple(answer.shape) for name, answer in zip(floats, answers, strict=True)}
    outputs = {name: found for name, found in outputs.items() if found[:1] == (batch,)}
    return Foreign(path, proto, opset, value.name, dtype, batch, is_fixed, session, outputs)


def read_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file without the files of its weights. Raises ExportError: it is none."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise ExportError(f"{path}: has {size / 1e9:.2f} GB; an ONNX file has at most {LARGEST / 1e9:.2f} GB")
        proto = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from error
    except ExportError:
        raise
    except Exception as error:  # DecodeError of protobuf, which has several implementations
        raise ExportError(
            f"{path}: not an ONNX graph ({_describe_start(path)}); download or export it again"
        ) from error
    if not proto.graph.node:
        raise ExportError(f"{path}: not an ONNX graph ({_describe_start(path)}); download or export it again")
    return proto


def list_external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """List the tensors of a graph that stand in other files."""
    # Private in onnx, whose public functions read the files at once.
    tensors = onnx.external_data_helper._get_all_tensors(proto)
    return [tensor for tensor in tensors if onnx.external_data_helper.uses_external_data(tensor)]


def find_input(path: Path, proto: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Return the input of a graph for the images. Raises ExportError: it has several, or none."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1:
        shown = ", ".join(f"`{value.name}` {name_dimensions(read_shape(value))}" for value in inputs)
        raise ExportError(f"{path}: found {len(inputs)} inputs: {shown or 'none'}; wanted one, the images")
    value: onnx.ValueInfoProto = inputs[0]
    return value


def takes_bytes(path: Path) -> bool:
    """Return whether the input of the graph at `path` is uint8. Raises ExportError."""
    return find_input(path, read_graph(path)).type.tensor_type.elem_type == onnx.TensorProto.UINT8


def check_input(path: Path, value: onnx.ValueInfoProto, shape: Dimensions, model: Model) -> np.dtype[Any]:
    """Check the input of a graph against the model's size, channels, layout and mean; return its type.

    Raises ExportError.
    """
    shown = f"{path}: its input `{value.name}`"
    number = value.type.tensor_type.elem_type
    if number not in TYPES:
        name = helper.tensor_dtype_to_string(number).removeprefix("TensorProto.").lower() if number else "no tensor"
        raise ExportError(f"{shown} is {name}; wanted float32, float16, float64 or uint8")
    dtype = TYPES[number]
    wanted = lay_out(model)
    if len(shape) != 4:
        raise ExportError(f"{shown} is {name_dimensions(shape)}; wanted 4 dimensions, {model.layout}")
    if any(isinstance(side, int) and side != own for side, own in zip(shape[1:], wanted, strict=True)):
        other = "nhwc" if model.layout == "nchw" else "nchw"
        turned = shape[1] == model.channels if other == "nchw" else shape[3] == model.channels
        hint = f"give --layout {other}" if turned else "give the --image-size, --channels and --layout that it has"
        raise ExportError(f"{shown} is {name_dimensions(shape)}; wanted {name_dimensions(('batch', *wanted))}; {hint}")
    if dtype == np.uint8 and not (set(model.mean) == {0.0} and np.allclose(model.std, BYTES, rtol=1e-6)):
        raise ExportError(f"{shown} is uint8, so that it gets bytes as they are; leave out --mean and --std")
    return dtype


def lay_out(model: Model) -> tuple[int, int, int]:
    """Return the shape of one image as the model's graph wants it."""
    height, width = model.size
    return (model.channels, height, width) if model.layout == "nchw" else (height, width, model.channels)


def read_shape(value: onnx.ValueInfoProto) -> Dimensions:
    """Return the dimensions of an input or output; a number that is open is a name or '?'."""
    dimensions = value.type.tensor_type.shape.dim
    return tuple(
        one.dim_value if one.HasField("dim_value") and one.dim_value > 0 else one.dim_param or "?" for one in dimensions
    )


def name_dimensions(shape: Dimensions) -> str:
    """Return a shape as text."""
    return f"({', '.join(map(str, shape))})"


def open_session(path: Path, content: bytes | None = None) -> onnxruntime.InferenceSession:
    """Open the file at `path`, or `content` made of it, on the CPU. Raises ExportError: ONNX Runtime refuses it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content or str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen types without a common root
        foreign = sorted(
            {f"{node.domain}.{node.op_type}" for node in read_graph(path).graph.node if node.domain not in OWN_DOMAINS}
        )
        reason = " ".join(str(error).split())[:200]
        if foreign:
            reason = f"it has no operator {', '.join(foreign)}; export the network with standard operators"
        raise ExportError(f"{path}: ONNX Runtime does not load it: {reason}") from error


def run(
    session: onnxruntime.InferenceSession, path: Path, outputs: Sequence[str], given: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Run a session. Raises ExportError in one line."""
    try:
        answers: list[NDArray[Any]] = session.run(list(outputs), dict(given))
    except Exception as error:  # ONNX Runtime raises a dozen types without a common root
        shapes = ", ".join(name_dimensions(array.shape) for array in given.values())
        raise ExportError(f"{path}: fails on an input of {shapes}: {' '.join(str(error).split())[:200]}") from error
    return answers


def _describe_start(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    return f"it starts with {start[:24]!r}" if start else "it is empty"
