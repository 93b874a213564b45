"""Views made by ONNX Runtime in a graph, bit for bit those of numpy; and what is made of their scores."""

import itertools
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference.manifest.labels import Labels
from inference.manifest.values import CORNERS, ORIENTATIONS, TURNS, Merge, Size
from inference.models.views import exchange_columns, merge_views, show_view
from packing.export.graphs.form import Form
from packing.export.graphs.views import trace_views

RANDOM = np.random.default_rng(0)
FLIPS = ("hflip", "vflip", "rot180")


def make_form(size: Size, frame: Size, cuts: tuple[str, ...], outputs: int, **rest: Any) -> Form:
    return Form(frame, size, (0.5,) * 3, (0.5,) * 3, outputs, "identity", cuts, **rest)


def make_graph(size: Size, outputs: int) -> onnx.ModelProto:
    """Make a network whose scores are the first bytes of what it sees, divided by 255."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "flat"], ["row"]),
        helper.make_node("Slice", ["row", "zero", "outputs", "one"], ["some"]),
        helper.make_node("Div", ["some", "full"], ["probabilities"]),
    ]
    constants = {"flat": [0, -1], "zero": [0], "outputs": [outputs], "one": [1]}
    tensors = [numpy_helper.from_array(np.array(values), name) for name, values in constants.items()]
    tensors.append(numpy_helper.from_array(np.array(255, np.float32), "full"))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *size, 3])
    scores = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", outputs])
    graph = helper.make_graph(nodes, "pixels", [image], [scores], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def open_graph(form: Form) -> onnxruntime.InferenceSession:
    graph = make_graph(form.size, form.outputs)
    trace_views(graph, form)
    onnx.checker.check_model(graph, full_check=True)
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, images: np.ndarray, views: list[int]) -> np.ndarray:
    (answer,) = session.run(None, {"image": images, "views": np.array(views)})
    return np.asarray(answer)


@pytest.mark.parametrize(
    ("size", "frame", "cuts"),
    [
        ((6, 6), (6, 6), ORIENTATIONS),
        ((6, 6), (9, 11), tuple(f"{corner}+{turn}" for corner in CORNERS for turn in ORIENTATIONS[1:])),
        ((6, 6), (9, 10), (*ORIENTATIONS, *CORNERS)),
        ((5, 8), (5, 8), ("hflip", "identity", "vflip", "rot180")),
        ((5, 8), (7, 9), ("identity", *CORNERS, *FLIPS, *(f"{corner}+{flip}" for corner in CORNERS for flip in FLIPS))),
        ((5, 8), (8, 8), ("bottom_right+vflip",)),
    ],
)
def test_every_view_has_the_bytes_of_numpys(size: Size, frame: Size, cuts: tuple[str, ...]) -> None:
    assert size[0] == size[1] or not any(turn in cut for cut in cuts for turn in TURNS)
    outputs = size[0] * size[1] * 3
    session = open_graph(make_form(size, frame, cuts, outputs))
    images = RANDOM.integers(0, 256, (3, *frame, 3), dtype=np.uint8)
    for place, cut in enumerate(cuts):
        shown = np.rint(run(session, images, [place]) * 255).astype(np.uint8)
        assert np.array_equal(shown.reshape(3, *size, 3), show_view(images, cut, size)), cut


def test_the_graph_makes_only_the_declared_views_and_names_them() -> None:
    graph = make_graph((6, 6), 4)
    trace_views(graph, make_form((6, 6), (8, 8), ("top_left", "top_left+hflip"), 4, merge="maximum"))
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("Unsqueeze") == 2 and kinds.count("Slice") == 3, "one corner, one flip, and one in the network"
    assert {one.key: one.value for one in graph.metadata_props} == {
        "cuts": json.dumps(["top_left", "top_left+hflip"]),
        "merge": "maximum",
    }
    assert [side.dim_value for side in graph.graph.input[0].type.tensor_type.shape.dim[1:]] == [8, 8, 3]


@pytest.mark.parametrize("merge", ["mean", "geometric", "maximum"])
@pytest.mark.parametrize("views", [[0], [2, 0], [0, 1, 2], [1, 1]])
def test_views_are_merged_as_the_kernel_merges_them(merge: Merge, views: list[int]) -> None:
    cuts = ("identity", "hflip", "vflip")
    session = open_graph(make_form((6, 6), (6, 6), cuts, 7, merge=merge))
    images = RANDOM.integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    images[0] = 0  # the logarithm of 0 is not finite
    parts = [show_view(images, cuts[view], (6, 6)).reshape(4, -1)[:, :7] / 255 for view in views]
    formulas = {
        "mean": lambda: np.mean(parts, axis=0),
        "geometric": lambda: np.prod([np.maximum(part, 1e-5) for part in parts], axis=0) ** (1 / len(parts)),
        "maximum": lambda: np.max(parts, axis=0),
    }
    answer = run(session, images, views)
    np.testing.assert_allclose(answer, formulas[merge](), rtol=1e-5, atol=1e-12)
    merged = merge_views([(1, part.astype(np.float32)) for part in parts], merge)
    np.testing.assert_allclose(answer, merged, rtol=3e-6, atol=1e-12)


def test_labels_that_a_mirror_exchanges_are_exchanged_back() -> None:
    names = ("left", "right", "top", "bottom", "other")
    labels = Labels(tuple(10 + place for place in range(5)), names, {"labels": tuple(range(5))})
    exchanged: Any = {"hflip": ((11, 10),), "vflip": ((12, 13),)}
    cuts = ("identity", "hflip", "vflip", "rot180")
    places = [exchange_columns(cut, "labels", labels, exchanged) for cut in cuts]
    form = make_form((2, 3), (2, 3), cuts, 5, exchanged=tuple(tuple(own.tolist()) for own in places))
    images = RANDOM.integers(0, 256, (3, 2, 3, 3), dtype=np.uint8)
    wanted = {0: [0, 1, 2, 3, 4], 1: [1, 0, 2, 3, 4], 2: [0, 1, 3, 2, 4], 3: [1, 0, 3, 2, 4]}  # by hand
    session = open_graph(form)
    for views in itertools.chain.from_iterable(itertools.permutations(range(4), count) for count in (1, 2, 4)):
        shown = [show_view(images, cuts[view], (2, 3)).reshape(3, -1)[:, wanted[view]] / 255 for view in views]
        np.testing.assert_allclose(run(session, images, list(views)), np.mean(shown, axis=0), rtol=1e-5, atol=1e-7)
