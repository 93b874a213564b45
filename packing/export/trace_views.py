"""Views made inside the graph: an image is copied to the device once, and one mean is copied back."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inference.manifest.values import View
from inference.models.views import VIEWS
from packing.export.graph import rename_value

IMAGE, CHOSEN = "image", "views"
IMAGES = "images"  # the input batch; inside the graph it is repeated once per view
Constants = dict[str, NDArray[np.int64]]


def trace_views(model: onnx.ModelProto, outputs: int) -> str:
    """Extend the graph to predict a batch in several views and return the mean score; changes `model`.

    Returns the name of the value with the scores of each view, (views * images, labels).
    A second input, `views`, int64, has their indices in `inference.models.views.VIEWS`. `outputs`: number of labels.
    """
    graph = model.graph
    (image,), (probabilities,) = graph.input, graph.output
    size = image.type.tensor_type.shape.dim[2].dim_value
    shown, each = f"{IMAGE}_shown", f"{probabilities.name}_each"
    rename_value(graph, image.name, shown)
    rename_value(graph, probabilities.name, each)
    constants: Constants = {"first": np.array([0])}
    # All views are made, as bytes, and then selected: selecting columns with Gather takes three times as long.
    before = [node for view in VIEWS for node in MAKERS[view](size, constants)]
    before += [helper.make_node("Unsqueeze", [view, "first"], [f"{view}_apart"]) for view in VIEWS]
    before += [
        helper.make_node("Concat", [f"{view}_apart" for view in VIEWS], ["all_views"], axis=0),
        helper.make_node("Gather", ["all_views", CHOSEN], ["views_shown"], axis=0),
        helper.make_node("Reshape", ["views_shown", "picture_shape"], [shown]),
    ]
    after = [
        helper.make_node("Shape", [CHOSEN], ["view_count"]),
        helper.make_node("Concat", ["view_count", "answer_shape"], ["view_shape"], axis=0),
        helper.make_node("Reshape", [each, "view_shape"], ["view_answers"]),
        helper.make_node("ReduceMean", ["view_answers", "first"], [probabilities.name], keepdims=0),
    ]
    for node in (*before, *after):
        node.name = f"make_{node.output[0]}"
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    constants |= {"picture_shape": np.array([-1, size, size, 3]), "answer_shape": np.array([-1, outputs])}
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    graph.input.append(helper.make_tensor_value_info(CHOSEN, TensorProto.INT64, [CHOSEN]))
    for end in (image, probabilities):
        end.type.tensor_type.shape.dim[0].dim_param = IMAGES
    return each


def _make_identity(size: int, constants: Constants) -> list[onnx.NodeProto]:
    return [helper.make_node("Identity", [IMAGE], ["identity"])]


def _make_hflip(size: int, constants: Constants) -> list[onnx.NodeProto]:
    constants |= {"last": np.array([-1]), "before_first": np.array([-1 - size]), "columns": np.array([2])}
    return [helper.make_node("Slice", [IMAGE, "last", "before_first", "columns", "last"], ["hflip"])]


# Functions that make each view of `image`, as a tensor named like the view.
MAKERS: Mapping[View, Callable[[int, Constants], list[onnx.NodeProto]]] = {
    "identity": _make_identity,
    "hflip": _make_hflip,
}
