"""Stackers through the packed script."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inference.basics.files import hash_file
from inference.ensemble.pairs import name_features
from inference.manifest.file import MANIFEST_NAME
from tests.conftest import LABELS, Workshop
from tests.roads.test_kernel import run_script


def write_trees(path: Path, names: tuple[str, ...], counts: list[int]) -> None:
    """Write trees that give each pair the output 1 of the member `tag`, whatever the label."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["features", "place"], ["out"], axis=1)],
        "trees",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["pairs", len(names)])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["pairs"])],
        [numpy_helper.from_array(np.array(names.index("tag[1]")), "place")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"counts": json.dumps(counts), "features": json.dumps(names)})
    onnx.save(model, path)


def test_a_model_for_features_runs_and_only_the_trees_read_it(own_workshop: Workshop, tmp_path: Path) -> None:
    """The trees' score of the label birds is the second output of the model `tag`; the blend gives the others'."""
    path = own_workshop.dataset / MANIFEST_NAME
    document = json.loads(path.read_text())
    write_trees(own_workshop.dataset / "trees.onnx", name_features(["everything"], [("tag", 3)]), [0, 0, 1, 0, 0])
    (tag,) = (model for model in document["models"] if model["name"] == "tag")
    tag |= {"group": "features", "outputs": 3}
    stacker = {"name": "trees", "kind": "trees", "group": "all", "members": ["everything"], "features": ["tag"]}
    stacker |= {
        "parity": 0,
        "top": 5,
        "onnx": {"file": "trees.onnx", "sha256": hash_file(path.with_name("trees.onnx"))},
    }
    document["ensemble"] = {
        "weights": {"culture": {"everything": 1, "culture": 1}, "tag": {"everything": 1}},
        "stackers": [stacker],
        "mix": {"culture": {"blend": 1}, "tag": {"trees": 1}},
    }
    rule = {"threshold": 0.5, "minimum": 0, "maximum": 9}
    document["decision"] |= {"groups": {"culture": rule, "tag": rule}, "fallback": {"culture": rule, "tag": rule}}
    path.write_text(json.dumps(document))
    finished = run_script(own_workshop, tmp_path / "submission.csv", "--predictions", str(tmp_path / "kept"))
    assert finished.returncode == 0, finished.stderr
    kept = {name: np.load(tmp_path / "kept" / f"{name}.npy").astype(float) for name in ("everything", "culture", "tag")}
    rows = (tmp_path / "submission.csv").read_text().splitlines()[1:]
    assert len(set(rows)) > 1 and not np.isnan(kept["tag"]).any() and kept["tag"].shape == (20, 3)
    scores = kept["everything"].copy()
    scores[:, :2] = (scores[:, :2] + kept["culture"]) / 2
    scores[:, LABELS.index("tag::birds")] = kept["tag"][:, 1]
    for row, found in zip(scores, rows, strict=True):
        selected = [str(label) for label in range(5) if row[label] >= 0.5] or [str(row.argmax())]
        assert found.partition(",")[2].split() == selected
