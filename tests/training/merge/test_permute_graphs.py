import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from inference.manifest.file import read_manifest
from tests.training.merge.team import Team
from training.merge.keep_stages import join_stacker
from training.merge.match_labels import match_labels
from training.merge.permute_graphs import permute_cnn, permute_model
from training.merge.sources import open_sources
from training.merge.team_folder import TeamFolder
from zoo.tables.out_of_fold import open_zoo


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    """Return the only output of a graph in ONNX Runtime."""
    (answer,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
    return np.asarray(answer)


def test_a_permuted_cnn_gives_the_permuted_output_for_permuted_input(zoos: Team, tmp_path: Path) -> None:
    source = zoos.theirs.parent / "second_stage" / "cnn_tag.onnx"
    match = match_labels(open_zoo(zoos.mine), open_zoo(zoos.theirs))
    order = match.order("tag")
    assert order == (1, 2, 0)  # no order that is its own reverse
    permute_cnn(source, tmp_path / "cnn.onnx", order)
    theirs = np.random.default_rng(0).random((50, 2, 3)).astype(np.float32)
    ours = np.stack([theirs[:, :, place] for place in order], axis=2)
    wanted = np.stack([run(source, scores=theirs)[:, place] for place in order], axis=1)
    found = run(tmp_path / "cnn.onnx", scores=ours)
    assert np.array_equal(found, wanted)
    assert np.abs(found - run(source, scores=ours)).max() > 0.01
    permute_cnn(tmp_path / "cnn.onnx", tmp_path / "twice.onnx", (2, 0, 1))  # back again
    assert np.array_equal(run(tmp_path / "twice.onnx", scores=theirs), run(source, scores=theirs))


def test_the_notes_of_trees_are_in_the_order_and_names_of_the_team(zoos: Team, tmp_path: Path) -> None:
    source = open_sources([zoos.mine, zoos.theirs], None, None, {})[1]
    manifest = read_manifest(zoos.theirs)
    (stacker,) = [one for one in manifest.ensemble.stackers if one.kind == "trees"]
    joined = join_stacker(stacker, 1, source, TeamFolder(tmp_path, copy=False))
    path = tmp_path / joined.onnx.file
    before, after = (
        {entry.key: json.loads(entry.value) for entry in onnx.load(place).metadata_props}
        for place in (zoos.theirs.parent / stacker.onnx.file, path)
    )
    own, team = open_zoo(zoos.theirs).labels, open_zoo(zoos.mine).labels
    counts = dict(zip(own.names, before["counts"], strict=True))
    assert after["counts"] == [counts[name] for name in team.names]
    groups = {name: group for group, name in zip(own.owners, own.names, strict=True)}
    assert after["groups"] == [groups[name] for name in team.names]
    assert after["features"] == [
        feature.replace("net", "bob_net").replace("wide", "bob_wide") for feature in before["features"]
    ]
    features = np.random.default_rng(0).random((9, len(before["features"]))).astype(np.float32)
    assert np.array_equal(run(path, features=features), run(zoos.theirs.parent / stacker.onnx.file, features=features))


def test_the_output_of_a_network_is_permuted_where_others_read_it_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["probabilities"]),
        helper.make_node("Identity", ["probabilities"], ["probabilities_of_member"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "probabilities")]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"cuts": '["identity"]', "merge": "mean"})
    onnx.save(model, tmp_path / "a.onnx")
    permute_model(tmp_path / "a.onnx", tmp_path / "b.onnx", (2, 0, 1))
    x = np.random.default_rng(0).normal(0, 1, (4, 3)).astype(np.float32)
    assert np.array_equal(run(tmp_path / "b.onnx", x=x), run(tmp_path / "a.onnx", x=x)[:, [2, 0, 1]])
    notes = {entry.key: entry.value for entry in onnx.load(tmp_path / "b.onnx").metadata_props}
    assert notes == {"cuts": '["identity"]', "merge": "mean"}
