"""Work of ready-made graphs against hand calculations, and of models that cannot be counted."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from inference.basics.errors import CheckpointError
from inference.basics.files import hash_file
from inference.manifest.file import read_manifest
from inference.manifest.labels import read_labels
from inference.manifest.model import Factory, FileEntry
from packing.plan.count_models import count_graph, count_models
from packing.plan.work import Work, count_work
from tests.conftest import Workshop
from zoo.networks import Design


def write_graph(path: Path, pool: str = "GlobalAveragePool") -> Path:
    """A convolution of 8 outputs, a ReLU, the mean over the image and a linear layer of 5 outputs, for any size."""
    floats = TensorProto.FLOAT
    weights = [
        helper.make_tensor(name, floats, shape, [0.1] * size)
        for name, shape, size in (("w", (8, 3, 3, 3), 216), ("m", (8, 5), 40))
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(pool, ["b"], ["c"], domain="" if pool == "GlobalAveragePool" else "own"),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "m"], ["out"]),
    ]
    inputs = [helper.make_tensor_value_info("image", floats, ["batch", 3, "height", "width"])]
    outputs = [helper.make_tensor_value_info("out", floats, ["batch", 5])]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights), opset_imports=opsets), path)
    return path


def test_the_work_of_a_graph_is_counted_from_its_nodes(tmp_path: Path) -> None:
    found = count_graph(write_graph(tmp_path / "g.onnx"), (10, 12), 3, "nchw")
    image, features = 3 * 10 * 12, 8 * 8 * 10
    moved = [image + features, features + 8, 8 + 5]  # the ReLU is fused, flattening copies nothing
    assert found == Work(features * 3 * 3 * 3 + 8 * 5, 4 * sum(moved), 4 * (216 + 40), 4 * max(moved))


def test_a_graph_whose_shapes_are_not_known_is_refused(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "g.onnx", "MyPool")
    with pytest.raises(CheckpointError, match=r"g\.onnx: cannot count its work: the shape of 'c' is not known"):
        count_graph(path, (10, 12), 3, "nchw")
    with pytest.raises(CheckpointError, match=r"g\.onnx: cannot count its work: "):
        count_graph(path, (10, 12), 4, "nchw")
    path.write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match=r"g\.onnx: cannot count its work: "):
        count_graph(path, (10, 12), 3, "nchw")


def test_models_without_their_files_are_left_out_with_the_reason(workshop: Workshop, tmp_path: Path) -> None:
    manifest = read_manifest(workshop.manifest)
    labels = read_labels(workshop.home / "labels.csv", manifest.labels.groups)
    graph = FileEntry("g.onnx", hash_file(write_graph(tmp_path / "g.onnx")))
    timm, *_ = manifest.models
    models = (
        timm,
        replace(timm, name="foreign", layout="nchw", checkpoint=graph),
        replace(timm, name="bundled", layout="nchw", checkpoint=None),
        replace(timm, name="own", factory=Factory("my.py", "0" * 64, "build")),
    )
    works, reasons = count_models(replace(manifest, models=models), tmp_path, labels)
    assert list(works) == [timm.name, "foreign"]
    assert works[timm.name] == count_work(Design(timm.architecture, timm.size, 5))
    assert works["foreign"] == count_graph(tmp_path / "g.onnx", timm.size, 3, "nchw")
    assert reasons == {
        "bundled": "model bundled: the manifest names no graph of its own to count",
        "own": f"weights_manifest.json: `own.factory.file`: no file my.py in {tmp_path}",
    }
    with pytest.raises(
        CheckpointError, match=r"^found no model whose work can be counted: model bundled: the manifest "
    ):
        count_models(replace(manifest, models=models[2:3]), tmp_path, labels)
