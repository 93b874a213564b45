"""ONNX graphs made elsewhere: wrapped so that they take the kernel's images, and run as they are for comparison."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, inliner, numpy_helper, shape_inference, version_converter
from PIL import Image

from inference.basics.errors import ExportError
from inference.manifest.labels import Labels
from inference.manifest.model import ALL, Model
from inference.manifest.task import Activation
from packing.export.foreign_graph import Foreign, name_dimensions, run
from packing.export.graphs.parts import KINDS, drop_unused
from zoo.grey import UNIT, WEIGHTS
from zoo.onnx_limits import NEWEST_IR, OPSET

IMAGE, SCORES = "image", "probabilities"
PREFIX = "net_"  # of the names inside of the foreign graph, which may be `image` too
BATCH = "images"
Nodes = list[onnx.NodeProto]


def wrap_foreign(foreign: Foreign, model: Model, labels: Labels, activation: Activation) -> onnx.ModelProto:
    """Return a foreign graph behind the normalisation of `model`, and before its label order and activation.

    Input `image`, uint8 (batch, height, width, 3) of the model's size; output `probabilities`, float32 (batch,
    outputs), in the order of labels.csv. Raises ExportError in one line: the graph cannot be served.
    """
    outputs = choose_outputs(foreign, model, labels)
    graph = _prepare(foreign)
    constants: dict[str, NDArray[Any]] = {}
    given = list_input_nodes(foreign, model, constants)
    graph.graph.node.extend(list_output_nodes(foreign, outputs, model, labels, activation, constants))
    nodes = [*given, *graph.graph.node]
    del graph.graph.node[:], graph.graph.input[:], graph.graph.output[:], graph.graph.value_info[:]
    graph.graph.node.extend(_keep_needed(nodes))
    graph.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    for number, node in enumerate(graph.graph.node):
        node.name = f"{node.op_type}_{number}"
    height, width = model.size
    graph.graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [BATCH, height, width, 3]))
    graph.graph.output.append(
        helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, [BATCH, labels.count_outputs(model)])
    )
    if not any(True for node in graph.graph.node for _ in _list_subgraphs(node)):
        drop_unused(graph.graph)
    return shape_inference.infer_shapes(graph)


def predict_foreign(
    foreign: Foreign, model: Model, labels: Labels, activation: Activation, batch: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return the scores (images, outputs) that the graph itself gives for a batch (images, height, width, 3).

    It is run as it is, image by image; normalisation, label order and activation are computed with numpy and Pillow.
    Raises ExportError.
    """
    outputs = choose_outputs(foreign, model, labels)
    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(batch), foreign.batch):
        part = batch[start : start + foreign.batch]
        missing = foreign.batch - len(part)
        given = normalise(np.concatenate([part, np.repeat(part[:1], missing, axis=0)]), foreign, model)
        answers = run(foreign.session, foreign.path, outputs, {foreign.input: given})
        heads = [np.asarray(answer, np.float32).reshape(foreign.batch, -1) for answer in answers]
        rows.append(np.concatenate(heads, axis=1)[: len(part)])
    logits = np.concatenate(rows)[:, list(order_columns(outputs, model, labels))].astype(np.float64)
    if activation == "sigmoid":
        logits = 1 / (1 + np.exp(-logits))
    elif activation == "softmax":
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        logits = powers / powers.sum(axis=1, keepdims=True)
    return logits.astype(np.float32)


def normalise(batch: NDArray[np.uint8], foreign: Foreign, model: Model) -> NDArray[Any]:
    """Return images (images, height, width, 3) as the graph wants them: its channels, type and layout."""
    if model.channels == 1:
        batch = np.stack([np.asarray(Image.fromarray(image).convert("L"))[..., None] for image in batch])
    values: NDArray[Any] = batch
    if foreign.dtype != np.uint8:
        mean, std = np.array(model.mean, np.float32), np.array(model.std, np.float32)
        values = ((batch.astype(np.float32) / np.float32(255) - mean) / std).astype(foreign.dtype)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if model.layout == "nchw" else values


def choose_outputs(foreign: Foreign, model: Model, labels: Labels) -> tuple[str, ...]:
    """Return the output with a score per label of the model's group, or one output per group for a model of all.

    Raises ExportError naming all outputs.
    """
    wanted = labels.count_outputs(model)
    widths = {name: width for name, shape in foreign.outputs.items() if (width := measure_width(shape)) is not None}
    fitting = [name for name, width in widths.items() if width == wanted]
    if len(fitting) == 1:
        return (fitting[0],)
    if not fitting and model.group == ALL:
        groups = {group: len(columns) for group, columns in labels.groups.items()}
        if all(widths.get(group) == width for group, width in groups.items()):
            return tuple(groups)
        if list(widths.values()) == list(groups.values()):
            return tuple(widths)
    shown = ", ".join(f"`{name}` {name_dimensions(shape)}" for name, shape in foreign.outputs.items())
    number = "several outputs" if fitting else "no output"
    heads = (
        f", or one output per group, with {name_widths(labels)}"
        if model.group == ALL and len(labels.groups) > 1
        else ""
    )
    raise ExportError(
        f"{foreign.path}: found {number} of {wanted} columns among {shown or 'none'}; wanted one output with one "
        f"column per label of {model.group!r}{heads}"
    )


def name_widths(labels: Labels) -> str:
    """Return the number of labels of each group as text."""
    return ", ".join(f"{len(columns)} of {group}" for group, columns in labels.groups.items())


def measure_width(shape: Sequence[int | str]) -> int | None:
    """Return the number of columns of an output (batch, columns) or (batch, columns, 1, 1); None: it is another."""
    sides = [side for side in shape[1:] if side != 1]
    if len(shape) == 0 or len(sides) > 1 or not all(isinstance(side, int) for side in sides):
        return None
    return int(sides[0]) if sides else 1


def order_columns(outputs: Sequence[str], model: Model, labels: Labels) -> tuple[int, ...]:
    """Return, for each score in the order of labels.csv, its column in the chosen outputs side by side."""
    columns = labels.columns(model.group)
    if model.label_order:
        places = {label: place for place, label in enumerate(model.label_order)}
        return tuple(places[labels.ids[column]] for column in columns)
    if len(outputs) > 1:
        side_by_side = [column for group in labels.groups.values() for column in group]
        return tuple(side_by_side.index(column) for column in columns)
    return tuple(range(labels.count_outputs(model)))


def list_input_nodes(foreign: Foreign, model: Model, constants: dict[str, NDArray[Any]]) -> Nodes:
    """Return the nodes from `image` to the input of the foreign graph; adds their constants."""
    nodes: Nodes = []
    value = IMAGE

    def append(operator: str, *more: str, **attributes: Any) -> None:
        nonlocal value
        made = f"{IMAGE}_{len(nodes)}"
        nodes.append(helper.make_node(operator, [value, *more], [made], **attributes))
        value = made

    if model.channels == 1:  # as zoo/grey.py
        constants |= {
            "grey_weights": np.array(WEIGHTS, np.int32),
            "grey_half": np.array(UNIT // 2, np.int32),
            "grey_unit": np.array(UNIT, np.int32),
            "grey_axis": np.array([3]),
        }
        append("Cast", to=TensorProto.INT32)
        append("Mul", "grey_weights")
        append("ReduceSum", "grey_axis", keepdims=1)
        append("Add", "grey_half")
        append("Div", "grey_unit")
    if model.layout == "nchw":
        append("Transpose", perm=[0, 3, 1, 2])
    shape = (1, -1, 1, 1) if model.layout == "nchw" else (1, 1, 1, -1)
    if foreign.dtype != np.uint8:
        constants |= {
            "pixel_range": np.array(255, np.float32),
            "pixel_mean": np.array(model.mean, np.float32).reshape(shape),
            "pixel_std": np.array(model.std, np.float32).reshape(shape),
        }
        append("Cast", to=TensorProto.FLOAT)
        # Three steps with the rounding of numpy: an input of fp16 turns other last bits into other values.
        append("Div", "pixel_range")
        append("Sub", "pixel_mean")
        append("Div", "pixel_std")
    append("Cast", to=helper.np_dtype_to_tensor_dtype(foreign.dtype))
    nodes[-1].output[0] = PREFIX + foreign.input
    return nodes


def list_output_nodes(
    foreign: Foreign,
    outputs: Sequence[str],
    model: Model,
    labels: Labels,
    activation: Activation,
    constants: dict[str, NDArray[Any]],
) -> Nodes:
    """Return the nodes from the chosen outputs of the foreign graph to `probabilities`; adds their constants."""
    nodes: Nodes = []
    for place, name in enumerate(outputs):
        constants[f"head_{place}_shape"] = np.array([-1, measure_width(foreign.outputs[name])])
        nodes += [
            helper.make_node("Cast", [PREFIX + name], [f"head_{place}_cast"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", [f"head_{place}_cast", f"head_{place}_shape"], [f"head_{place}"]),
        ]
    value = "head_0"
    if len(outputs) > 1:
        nodes.append(helper.make_node("Concat", [f"head_{place}" for place in range(len(outputs))], ["heads"], axis=1))
        value = "heads"
    order = order_columns(outputs, model, labels)
    if order != tuple(range(len(order))):
        constants["label_order"] = np.array(order)
        nodes.append(helper.make_node("Gather", [value, "label_order"], ["ordered"], axis=1))
        value = "ordered"
    if activation != "identity":
        axis: dict[str, Any] = {"axis": -1} if activation == "softmax" else {}
        nodes.append(helper.make_node(KINDS[activation], [value], [SCORES], **axis))
    else:
        nodes[-1].output[0] = SCORES
    return nodes


def _prepare(foreign: Foreign) -> onnx.ModelProto:
    """Return the foreign graph in an opset of the kernel, with any batch size, without functions and with PREFIX."""
    graph = onnx.ModelProto()
    graph.CopyFrom(foreign.proto)
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in weights]
    del graph.graph.input[:], graph.graph.value_info[:]
    graph.graph.input.extend(inputs)
    for value in (*graph.graph.input, *graph.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].dim_param = BATCH
    if foreign.opset < OPSET:
        try:
            graph = version_converter.convert_version(graph, OPSET)
        except Exception as error:  # RuntimeError, or types of onnx's C++ part
            raise ExportError(
                f"{foreign.path}: its opset is {foreign.opset}, and onnx cannot convert it to {OPSET}: "
                f"{' '.join(str(error).split())[:200]}; export it with opset {OPSET}"
            ) from error
    graph = inliner.inline_local_functions(graph)
    graph.ir_version = NEWEST_IR
    _add_prefix(graph.graph)
    for owner in (graph, graph.graph, *graph.graph.node):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")
    return graph


def _add_prefix(graph: onnx.GraphProto) -> None:
    """Put PREFIX before each name; onnx.compose leaves out what branches read from outside of them."""
    graph.ClearField("quantization_annotation")
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = PREFIX + value.name
    for sparse in graph.sparse_initializer:
        sparse.values.name = PREFIX + sparse.values.name
    for node in graph.node:
        node.input[:] = [name and PREFIX + name for name in node.input]
        node.output[:] = [name and PREFIX + name for name in node.output]
        for inner in _list_subgraphs(node):
            _add_prefix(inner)


def _keep_needed(nodes: Sequence[onnx.NodeProto]) -> Nodes:
    """Return the nodes that SCORES needs, in order."""
    makers = {output: node for node in nodes for output in node.output}
    pending, needed = [SCORES], set()
    while pending:
        maker = makers.get(pending.pop())
        if maker is not None and id(maker) not in needed:
            needed.add(id(maker))
            pending += _list_read(maker)
    return [node for node in nodes if id(node) in needed]


def _list_read(node: onnx.NodeProto) -> list[str]:
    """Return the names of the values that a node reads, also in the graphs of its branches."""
    return [
        *node.input,
        *(name for graph in _list_subgraphs(node) for inner in graph.node for name in _list_read(inner)),
    ]


def _list_subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
