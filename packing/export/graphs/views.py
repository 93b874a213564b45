"""Views made inside the graph: an image is copied to the device once, and one merged score is copied back."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inference.basics.logarithms import SMALLEST
from inference.manifest.values import Size, split_view
from inference.models.views import place_cut
from packing.export.graphs.form import Form
from packing.export.graphs.parts import rename_value

IMAGE, CHOSEN = "image", "views"
IMAGES = "images"  # the input batch; inside the graph it is repeated once per view
HEIGHT, WIDTH = 1, 2  # axes of (images, height, width, 3)
# Orientation -> whether height and width are exchanged first, and the axes that are then reversed.
STEPS: Mapping[str, tuple[bool, tuple[int, ...]]] = {
    "identity": (False, ()),
    "hflip": (False, (WIDTH,)),
    "vflip": (False, (HEIGHT,)),
    "rot180": (False, (HEIGHT, WIDTH)),
    "transpose": (True, ()),
    "rot90": (True, (HEIGHT,)),
    "rot270": (True, (WIDTH,)),
    "transverse": (True, (HEIGHT, WIDTH)),
}


class Nodes:
    """New nodes of a graph, in order, and their constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output; return that name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"make_{output}", **attributes))
        return output

    def keep(self, name: str, values: object, dtype: type[np.generic] = np.int64) -> str:
        """Add a constant; return its name."""
        self.constants[name] = np.array(values, dtype)
        return name


def trace_views(model: onnx.ModelProto, form: Form) -> str:
    """Extend the graph to predict a batch in several views and return the merged score; changes `model`.

    Returns the name of the value with the scores of each view, (views * images, outputs).
    A second input, `views`, int64, has their indices in `form.cuts`, which the metadata of the graph name.
    """
    graph = model.graph
    (image,), (probabilities,) = graph.input, graph.output
    shown, each = f"{IMAGE}_shown", f"{probabilities.name}_each"
    rename_value(graph, image.name, shown)
    rename_value(graph, probabilities.name, each)
    before, after = Nodes(), Nodes()
    _show(before, form, shown)
    _merge(after, form, each, probabilities.name)
    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    constants = before.constants | after.constants
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    graph.input.append(helper.make_tensor_value_info(CHOSEN, TensorProto.INT64, [CHOSEN]))
    for end in (image, probabilities):
        end.type.tensor_type.shape.dim[0].dim_param = IMAGES
    for axis, side in zip((HEIGHT, WIDTH), form.frame, strict=True):
        image.type.tensor_type.shape.dim[axis].dim_value = side
    helper.set_model_props(model, {"cuts": json.dumps(form.cuts), "merge": form.merge})
    return each


def _show(made: Nodes, form: Form, shown: str) -> None:
    """Make `shown`, (views * images, height, width, 3), of the image and the chosen views."""
    # All views are made, as bytes, and then selected: selecting columns with Gather takes three times as long.
    first = made.keep("first", [0])
    apart = [made.add("Unsqueeze", [_make_cut(made, cut, form), first], f"{cut}_apart") for cut in form.cuts]
    everything = made.add("Concat", apart, "all_views", axis=0)
    chosen = made.add("Gather", [everything, CHOSEN], "views_shown", axis=0)
    made.add("Reshape", [chosen, made.keep("picture_shape", [-1, *form.size, 3])], shown)


def _make_cut(made: Nodes, cut: str, form: Form) -> str:
    """Make the view `cut`, (images, height, width, 3), of the image, as `show_view` does; return the value's name."""
    parts = split_view(cut)
    is_turned, reversed_axes = STEPS[parts.orientation]
    value, view = IMAGE, f"{cut}_view"
    if form.frame != form.size:
        start = place_cut(parts.corner, form.frame, form.size)
        value = _slice(made, value, parts.corner or "centre", start, form.size)
    if is_turned:
        value = made.add("Transpose", [value], f"{cut}_turned", perm=[0, WIDTH, HEIGHT, 3])
    if not reversed_axes:
        return made.add("Identity", [value], view)
    axes = "_".join(map(str, reversed_axes))
    last = made.keep(f"last_{axes}", [-1] * len(reversed_axes))
    beyond = made.keep(f"before_first_{axes}", [np.iinfo(np.int64).min] * len(reversed_axes))
    return made.add("Slice", [value, last, beyond, made.keep(f"axes_{axes}", reversed_axes), last], view)


def _slice(made: Nodes, value: str, place: str, start: Size, size: Size) -> str:
    """Cut `size` out of an image at `start`; cuts of one place share it."""
    name = f"{place}_cut"
    if name not in made.constants:
        ends = [begin + side for begin, side in zip(start, size, strict=True)]
        inputs = [value, made.keep(name, start), made.keep(f"{place}_ends", ends), made.keep("sides", [HEIGHT, WIDTH])]
        made.add("Slice", inputs, f"{place}_shown")
    return f"{place}_shown"


def _merge(made: Nodes, form: Form, each: str, merged: str) -> None:
    """Make `merged`, (images, outputs), of the scores of each view, (views * images, outputs)."""
    first = made.keep("first", [0])
    count = made.add("Shape", [CHOSEN], "view_count")
    shape = made.add("Concat", [count, made.keep("answer_shape", [-1, form.outputs])], "view_shape", axis=0)
    scores = made.add("Reshape", [each, shape], "view_answers")
    if form.exchanged:
        scores = _exchange(made, form, scores)
    if form.merge == "maximum":
        made.add("ReduceMax", [scores, first], merged, keepdims=0)
    elif form.merge == "geometric":
        above = made.add("Max", [scores, made.keep("smallest", SMALLEST, np.float32)], "view_scores")
        logarithms = made.add("Log", [above], "view_logarithms")
        made.add("Exp", [made.add("ReduceMean", [logarithms, first], "mean_logarithm", keepdims=0)], merged)
    else:
        made.add("ReduceMean", [scores, first], merged, keepdims=0)


def _exchange(made: Nodes, form: Form, scores: str) -> str:
    """Give each label the score of the label that it looks like in a view; all (views, images, outputs)."""
    places = made.add("Gather", [made.keep("exchanged", form.exchanged), CHOSEN], "view_places", axis=0)
    apart = made.add("Unsqueeze", [places, made.keep("second", [1])], "view_places_apart")
    spread = made.add("Expand", [apart, made.add("Shape", [scores], "scores_shape")], "view_places_spread")
    return made.add("GatherElements", [scores, spread], "views_exchanged", axis=2)
