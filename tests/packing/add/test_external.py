"""Graphs with weights in other files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference.basics.errors import ExportError
from packing.add.external import fold_weights

WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


def write_graph(path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(proto, path, save_as_external_data=True, location="net.data", size_threshold=0)
    return path


def test_weights_of_another_file_are_folded_in(tmp_path: Path) -> None:
    path, out = write_graph(tmp_path / "net.onnx"), tmp_path / "whole.onnx"
    before = path.read_bytes()
    assert fold_weights(path, out)
    (tmp_path / "net.data").unlink()
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.eye(2, dtype=np.float32)})
    assert np.array_equal(found, WEIGHTS) and path.read_bytes() == before
    assert not fold_weights(out, tmp_path / "again.onnx") and not (tmp_path / "again.onnx").exists()


def remove_data(path: Path) -> None:
    (path.parent / "net.data").unlink()


def make_large(path: Path) -> None:
    """Declare a tensor of 3 GB in a file with a hole, which takes no space."""
    proto = onnx.load(path, load_external_data=False)
    (tensor,) = proto.graph.initializer
    tensor.dims[:] = [2, 375_000_000]
    for entry in tensor.external_data:
        if entry.key == "length":
            entry.value = str(3_000_000_000)
    path.write_bytes(proto.SerializeToString())
    with (path.parent / "net.data").open("r+b") as file:
        file.truncate(3_000_000_000)


def shorten_data(path: Path) -> None:
    with (path.parent / "net.data").open("r+b") as file:
        file.truncate(4)


def take_the_place(path: Path) -> None:
    path.with_name("whole.onnx").touch()


@pytest.mark.parametrize(
    ("break_file", "message"),
    [
        (
            remove_data,
            "{path}: its weights stand in net.data, which is missing in {folder}; copy it there, or export the network "
            "as one file",
        ),
        (
            make_large,
            "{path}: has 3.00 GB with its weights in net.data; wanted at most 2.15 GB, as an ONNX file is one protobuf "
            "message; export it in fp16, or choose a smaller network",
        ),
        (
            take_the_place,
            "{folder}/whole.onnx: already exists; wanted to write net.onnx and its weights there as one file; "
            "remove it",
        ),
        (shorten_data, "{path}: its weights cannot be read: "),
    ],
)
def test_weights_that_cannot_be_folded_in_are_refused(
    break_file: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = write_graph(tmp_path / "net.onnx")
    break_file(path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError) as error:
        fold_weights(path, tmp_path / "whole.onnx")
    wanted = message.format(path=path, folder=tmp_path)
    assert str(error.value).startswith(wanted) if wanted.endswith(": ") else str(error.value) == wanted
    assert "\n" not in str(error.value) and sorted(tmp_path.iterdir()) == before
