"""Work of the models of a manifest: of networks from their shapes, of ready-made graphs from their nodes."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from inference.basics.errors import CheckpointError, ManifestError
from inference.manifest.file import verify_files
from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.manifest.records import Manifest
from inference.manifest.values import GraphLayout, Size
from packing.plan.work import FLOAT_BYTES, Work, count_work
from zoo.networks import read_design
from zoo.text import flatten_message

# Operators that a runtime fuses into the one before, as in work.FUSED; and those that only change the shape.
FUSED = frozenset({"BatchNormalization", "Clip", "Relu"})
VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Constant", "Shape"})


def count_models(manifest: Manifest, home: Path, labels: Labels) -> tuple[dict[str, Work], dict[str, str]]:
    """Count the work of each model, by name; and the reason for each model that cannot be counted.

    Those are models of a factory or ready-made graphs whose file is missing or cannot be analysed. `home`: the
    manifest's folder. Raises CheckpointError: a network of timm that cannot be created, or no model can be counted.
    """
    works: dict[str, Work] = {}
    reasons: dict[str, str] = {}
    counted: dict[str, Work] = {}
    for model in manifest.models:
        try:
            if model.layout is not None:
                works[model.name] = _count_foreign(model, model.layout, home)
                continue
            design = read_design(model, home, labels)
            key = repr(design)
            if key not in counted:
                counted[key] = count_work(design)
            works[model.name] = counted[key]
        except (CheckpointError, ManifestError) as error:
            if model.layout is None and model.factory is None:
                raise
            reasons[model.name] = flatten_message(error)
    if not works:
        raise CheckpointError(f"found no model whose work can be counted: {'; '.join(reasons.values())}")
    return works, reasons


def count_graph(path: Path, size: Size, channels: int, layout: GraphLayout) -> Work:
    """Count the work of an ONNX graph for one image. Raises CheckpointError: shapes that cannot be inferred."""
    try:
        model = onnx.load(path)
        shape = (1, channels, *size) if layout == "nchw" else (1, *size, channels)
        for dimension, length in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
            dimension.dim_value = length
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:  # of protobuf, of the shape inference, a graph with other inputs
        raise CheckpointError(f"{path}: cannot count its work: {flatten_message(error)[:200]}") from error
    weights = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    shapes = weights | dict(_list_shapes(inferred))
    multiply_adds = moved = widest = 0
    fusible: set[str] = set()
    for node in inferred.node:
        if node.op_type in VIEWS or (node.op_type in FUSED and node.input[0] in fusible):
            fusible |= set(node.output) if node.op_type in FUSED else set()
            continue
        unknown = [name for name in (*node.input, *node.output) if name and name not in shapes]
        if unknown:
            raise CheckpointError(f"{path}: cannot count its work: the shape of {unknown[0]!r} is not known")
        found = _count_node(node, shapes)
        multiply_adds += found
        images = [name for name in (*node.input, *node.output) if name and name not in weights]
        size_moved = FLOAT_BYTES * sum(math.prod(shapes[name]) for name in images)
        moved, widest = moved + size_moved, max(widest, size_moved)
        if found:
            fusible |= set(node.output)
    return Work(multiply_adds, moved, FLOAT_BYTES * sum(map(math.prod, weights.values())), widest)


def _count_foreign(model: Model, layout: GraphLayout, home: Path) -> Work:
    if model.checkpoint is None:
        raise CheckpointError(f"model {model.name}: the manifest names no graph of its own to count")
    verify_files([(f"{model.name}.checkpoint", model.checkpoint)], home)
    return count_graph(home / model.checkpoint.file, model.size, model.channels, layout)


def _list_shapes(graph: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of the values whose shape is known wholly."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(one.HasField("dim_value") for one in tensor.shape.dim):
            yield value.name, tuple(one.dim_value for one in tensor.shape.dim)


def _count_node(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the multiply-adds of a node."""
    if node.op_type == "Conv":  # each output: input channels per group times the kernel
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if turned else 1]
    return 0
