"""ONNX graphs of another zoo, changed to the team's order of labels and names of members."""

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from inference.ensemble.pairs import name_features
from inference.manifest.model import list_members
from inference.manifest.records import Manifest, Stacker
from training.merge.match_labels import LabelMatch

SCORES, PROBABILITIES = "scores", "probabilities"


def permute_model(source: Path, target: Path, order: Sequence[int]) -> None:
    """Write a network whose output `probabilities`, (images, outputs), is permuted: ours[i] = theirs[order[i]]."""
    graph = onnx.load(source)
    _gather_output(graph, order)
    onnx.save(graph, target)


def permute_cnn(source: Path, target: Path, order: Sequence[int]) -> None:
    """Write a CNN stacker whose `scores`, (images, members, labels), and `probabilities` are in the team's order."""
    graph = onnx.load(source)
    back = [0] * len(order)
    for place, column in enumerate(order):
        back[column] = place
    inner = _free_name(graph, f"{SCORES}_of_member")
    for node in graph.graph.node:
        node.input[:] = [inner if name == SCORES else name for name in node.input]
    indices = _add_indices(graph, f"{SCORES}_order", back)
    graph.graph.node.insert(0, helper.make_node("Gather", [SCORES, indices], [inner], axis=2))
    _gather_output(graph, order)
    onnx.checker.check_model(graph)
    onnx.save(graph, target)


def rewrite_trees(
    source: Path, target: Path, stacker: Stacker, renamed: Stacker, zoo: Manifest, match: LabelMatch
) -> None:
    """Write a tree stacker with the notes that the kernel reads in the team's order and names.

    `counts`: training images per label; `groups`: index of each label's group as in the fit; `features`: their names.
    """
    graph = onnx.load(source)
    notes = {entry.key: entry.value for entry in graph.metadata_props}
    order = match.order("all")
    counts, features = json.loads(notes["counts"]), json.loads(notes["features"])
    owners: Sequence[int] = json.loads(notes["groups"]) if "groups" in notes else match.own.owners
    members = list_members(zoo.models)
    extra = [members[name][0].outputs for name in stacker.features]
    before = name_features(stacker.members, list(zip(stacker.features, extra, strict=True)))
    after = name_features(renamed.members, list(zip(renamed.features, extra, strict=True)))
    names = dict(zip(before, after, strict=True))
    notes["features"] = json.dumps([names.get(name, name) for name in features])
    notes["counts"] = json.dumps([counts[column] for column in order])
    notes["groups"] = json.dumps([owners[column] for column in order])
    del graph.metadata_props[:]
    helper.set_model_props(graph, notes)
    onnx.save(graph, target)


def _gather_output(graph: onnx.ModelProto, order: Sequence[int]) -> None:
    inner = _free_name(graph, f"{PROBABILITIES}_of_member")
    for node in graph.graph.node:
        node.input[:] = [inner if name == PROBABILITIES else name for name in node.input]
        node.output[:] = [inner if name == PROBABILITIES else name for name in node.output]
    indices = _add_indices(graph, f"{PROBABILITIES}_order", order)
    graph.graph.node.append(helper.make_node("Gather", [inner, indices], [PROBABILITIES], axis=1))


def _add_indices(graph: onnx.ModelProto, wanted: str, order: Sequence[int]) -> str:
    name = _free_name(graph, wanted)
    graph.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(order)], list(order)))
    return name


def _free_name(graph: onnx.ModelProto, wanted: str) -> str:
    """Return `wanted`, with underscores if a value of the graph has that name: a graph may be permuted twice."""
    used = {name for node in graph.graph.node for name in (*node.input, *node.output)}
    used |= {tensor.name for tensor in graph.graph.initializer}
    while wanted in used:
        wanted += "_"
    return wanted
