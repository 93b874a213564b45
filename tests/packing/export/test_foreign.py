"""ONNX graphs made elsewhere, against torch and against ONNX Runtime on the graph as it is."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from inference.basics.errors import ExportError
from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.manifest.task import Activation
from packing.export.foreign import predict_foreign, wrap_foreign
from packing.export.foreign_graph import read_foreign
from packing.export.graphs.parts import LOGITS, list_ending, name_logits
from zoo.onnx_limits import NEWEST_IR, OPSET, PARITY_LIMIT

LABELS = Labels(
    (7, 3, 5, 2, 9),
    ("tag::a", "culture::b", "tag::c", "culture::d", "tag::e"),
    {"tag": (0, 2, 4), "culture": (1, 3)},
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NET = Model("net", "onnx", "all", 64, MEAN, STD, "bilinear", layout="nchw")
SIZE = (64, 64)
pytestmark = pytest.mark.usefixtures("one_thread")


def draw(images: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (images, *size, 3), dtype=np.uint8)


def make_network(architecture: str = "test_resnet", outputs: int = 5, **more: Any) -> torch.nn.Module:
    torch.manual_seed(2)
    network = timm.create_model(architecture, num_classes=outputs, **more).eval()
    with torch.no_grad():
        for parameter in network.get_classifier().parameters():
            parameter.mul_(20)
    return network


def export(network: torch.nn.Module, path: Path, example: torch.Tensor | None = None, **more: Any) -> Path:
    """Export as most notebooks do: by torch's older exporter, which names the input and output itself."""
    settings: dict[str, Any] = {"input_names": ["image"], "output_names": ["out"], "dynamic_axes": {"image": {0: "n"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(1, 3, *SIZE) if example is None else example,), str(path), dynamo=False,
            **{"opset_version": OPSET, **settings, **more},
        )  # fmt: skip
    return path


def run_wrapped(graph: onnx.ModelProto, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [(value.name, value.type) for value in session.get_inputs()] == [("image", "tensor(uint8)")]
    (scores,) = session.run(["probabilities"], {"image": batch})
    assert isinstance(scores, np.ndarray) and scores.dtype == np.float32
    return scores


def run_torch(network: torch.nn.Module, batch: NDArray[np.uint8], activation: Activation) -> NDArray[np.float32]:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    with torch.inference_mode():
        logits = network(torch.from_numpy(batch).permute(0, 3, 1, 2).float().div(255).sub(mean).div(std))
    scores = {"sigmoid": logits.sigmoid(), "softmax": logits.softmax(-1), "identity": logits}[activation]
    found: NDArray[np.float32] = scores.numpy()
    return found


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    network = make_network()
    return network, export(network, tmp_path_factory.mktemp("foreign") / "resnet.onnx")


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "identity"])
def test_a_wrapped_network_gives_the_scores_of_torch(
    activation: Activation, resnet: tuple[torch.nn.Module, Path]
) -> None:
    network, path = resnet
    batch = draw(3)
    wanted = run_torch(network, batch, activation)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01  # the scores depend on the image
    graph = wrap_foreign(read_foreign(path, NET), NET, LABELS, activation)
    onnx.checker.check_model(graph)
    assert np.abs(run_wrapped(graph, batch) - wanted).max() < PARITY_LIMIT
    assert (
        np.abs(predict_foreign(read_foreign(path, NET), NET, LABELS, activation, batch) - wanted).max() < PARITY_LIMIT
    )
    assert graph.ir_version <= NEWEST_IR and {entry.version for entry in graph.opset_import} == {OPSET}


def test_the_logits_are_found_before_the_activation(resnet: tuple[torch.nn.Module, Path]) -> None:
    graph = wrap_foreign(read_foreign(resnet[1], NET), NET, LABELS, "sigmoid")
    name_logits(graph.graph, "probabilities", "sigmoid")
    assert [node.op_type for node in list_ending(graph.graph)] == ["Sigmoid"]
    graph.graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["images", 5]))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run([LOGITS], {"image": draw(2)})
    assert np.abs(logits - run_torch(resnet[0], draw(2), "identity")).max() < 1e-3


@pytest.mark.parametrize("opset", [14, 16])
def test_a_vit_of_an_older_opset_is_converted(opset: int, tmp_path: Path) -> None:
    network = make_network("test_vit", img_size=64)
    path = export(network, tmp_path / "vit.onnx", opset_version=opset)
    graph = wrap_foreign(read_foreign(path, NET), NET, LABELS, "sigmoid")
    assert {entry.version for entry in graph.opset_import} == {OPSET}
    assert np.abs(run_wrapped(graph, draw(3)) - run_torch(network, draw(3), "sigmoid")).max() < PARITY_LIMIT


def test_the_label_order_is_undone(resnet: tuple[torch.nn.Module, Path]) -> None:
    order = (9, 7, 2, 5, 3)
    model = dataclasses.replace(NET, label_order=order)
    theirs = run_torch(resnet[0], draw(2), "sigmoid")
    wanted = np.stack([theirs[:, order.index(label)] for label in LABELS.ids], axis=1)
    assert (
        np.abs(
            run_wrapped(wrap_foreign(read_foreign(resnet[1], model), model, LABELS, "sigmoid"), draw(2)) - wanted
        ).max()
        < PARITY_LIMIT
    )
    assert (
        np.abs(predict_foreign(read_foreign(resnet[1], model), model, LABELS, "sigmoid", draw(2)) - wanted).max()
        < PARITY_LIMIT
    )


class Heads(torch.nn.Module):
    def __init__(self, as_dict: bool = False) -> None:
        super().__init__()
        self.whole, self.as_dict = make_network(), as_dict

    def forward(self, image: torch.Tensor) -> Any:
        out = self.whole(image)
        tag, culture = out[:, [0, 2, 4]], out[:, [1, 3]]
        return (culture, tag) if self.as_dict else (tag, culture)


@pytest.mark.parametrize("names", [["one", "two"], ["culture", "tag"]])
def test_a_head_per_group_is_joined_in_the_order_of_the_labels(names: list[str], tmp_path: Path) -> None:
    network = Heads(as_dict=names[0] == "culture").eval()
    path = export(network, tmp_path / "heads.onnx", output_names=names)
    wanted = run_torch(network.whole, draw(2), "sigmoid")
    assert (
        np.abs(run_wrapped(wrap_foreign(read_foreign(path, NET), NET, LABELS, "sigmoid"), draw(2)) - wanted).max()
        < PARITY_LIMIT
    )
    # A model of one group takes the head of its width; the other head and its nodes are dropped.
    model = dataclasses.replace(NET, group="tag")
    graph = wrap_foreign(read_foreign(path, model), model, LABELS, "sigmoid")
    assert np.abs(run_wrapped(graph, draw(2)) - wanted[:, [0, 2, 4]]).max() < PARITY_LIMIT
    assert len(graph.graph.node) < len(wrap_foreign(read_foreign(path, NET), NET, LABELS, "sigmoid").graph.node)


def build_channels_last(path: Path, dtype: int = TensorProto.FLOAT, channels: int = 3, size: int | str = 8) -> Path:
    """Write a graph that returns, for each of 5 outputs, a weighted mean over the pixels of an image in NHWC."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    compute = TensorProto.FLOAT if dtype == TensorProto.UINT8 else dtype
    weights = np.linspace(-2, 2, channels * 5).reshape(channels, 5).astype(helper.tensor_dtype_to_np_dtype(compute))
    nodes = [
        helper.make_node("Cast", ["image"], ["probabilities"], to=compute),
        helper.make_node("ReduceMean", ["probabilities", "axes"], ["logits"], keepdims=0),
        helper.make_node("MatMul", ["logits", "weights"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("image", dtype, ["n", size, size, channels])],
        [helper.make_tensor_value_info("out", compute, ["n", 5])],
        [numpy_helper.from_array(np.array([1, 2]), "axes"), numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=NEWEST_IR), path)
    assert kind is not None
    return path


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8])
@pytest.mark.parametrize("channels", [3, 1])
def test_channels_last_of_any_type_whose_names_clash_with_ours(dtype: int, channels: int, tmp_path: Path) -> None:
    path = build_channels_last(tmp_path / "net.onnx", dtype, channels, "side")
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels]
    if dtype == TensorProto.UINT8:
        mean, std = (0.0,) * channels, (1 / 255,) * channels
    model = dataclasses.replace(NET, image_size=(8, 12), mean=mean, std=std, layout="nhwc")
    batch = draw(4, (8, 12))
    shown = batch if channels == 3 else np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in batch])
    pixels = (shown.reshape(4, 8, 12, channels) / 255 - np.array(mean)) / np.array(std)
    logits = pixels.mean(axis=(1, 2)) @ np.linspace(-2, 2, channels * 5).reshape(channels, 5)
    if dtype == TensorProto.UINT8:
        logits = np.clip(logits, -30, 30)
    wanted = 1 / (1 + np.exp(-logits))
    found = run_wrapped(wrap_foreign(read_foreign(path, model), model, LABELS, "sigmoid"), batch)
    limit = 2e-3 if dtype == TensorProto.FLOAT16 else PARITY_LIMIT
    assert np.abs(found - wanted).max() < limit
    assert (
        np.abs(found - predict_foreign(read_foreign(path, model), model, LABELS, "sigmoid", batch)).max() < PARITY_LIMIT
    )


def test_a_fixed_batch_of_one_is_opened_where_the_network_allows_it(tmp_path: Path) -> None:
    network = make_network()
    path = export(network, tmp_path / "one.onnx", dynamic_axes=None)
    value = onnx.load(path).graph.input[0]
    assert value.type.tensor_type.shape.dim[0].dim_value == 1
    wanted = run_torch(network, draw(3), "sigmoid")
    assert (
        np.abs(run_wrapped(wrap_foreign(read_foreign(path, NET), NET, LABELS, "sigmoid"), draw(3)) - wanted).max()
        < PARITY_LIMIT
    )
    assert (
        np.abs(predict_foreign(read_foreign(path, NET), NET, LABELS, "sigmoid", draw(3)) - wanted).max() < PARITY_LIMIT
    )


def test_a_fixed_batch_of_several_is_opened_too(tmp_path: Path) -> None:
    path = build_channels_last(tmp_path / "four.onnx")
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(proto, path)
    model = dataclasses.replace(NET, image_size=8, layout="nhwc")
    batch = draw(7, (8, 8))
    pixels = ((batch / 255 - np.array(MEAN)) / np.array(STD)).mean(axis=(1, 2))
    wanted = 1 / (1 + np.exp(-pixels @ np.linspace(-2, 2, 15).reshape(3, 5)))
    assert (
        np.abs(run_wrapped(wrap_foreign(read_foreign(path, model), model, LABELS, "sigmoid"), batch) - wanted).max()
        < PARITY_LIMIT
    )
    assert (
        np.abs(predict_foreign(read_foreign(path, model), model, LABELS, "sigmoid", batch) - wanted).max()
        < PARITY_LIMIT
    )


@pytest.mark.parametrize("opset", [22, 26])
def test_a_newer_opset_is_kept(opset: int, tmp_path: Path) -> None:
    path = build_channels_last(tmp_path / "new.onnx")
    onnx.save(onnx.version_converter.convert_version(onnx.load(path), opset), path)
    model = dataclasses.replace(NET, image_size=8, layout="nhwc")
    graph = wrap_foreign(read_foreign(path, model), model, LABELS, "sigmoid")
    assert {entry.version for entry in graph.opset_import} == {opset} and graph.ir_version <= NEWEST_IR
    wanted = predict_foreign(read_foreign(path, model), model, LABELS, "sigmoid", draw(2, (8, 8)))
    assert np.abs(run_wrapped(graph, draw(2, (8, 8))) - wanted).max() < PARITY_LIMIT


def test_weights_that_only_a_branch_reads_stay(tmp_path: Path) -> None:
    """As in networks with an If, whose branches read values from outside."""

    def branch(name: str, factor: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Mul", ["sums", factor], [name])], name, [], [made])

    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["sums"], keepdims=0),
        helper.make_node("If", ["flag"], ["out"], then_branch=branch("yes", "two"), else_branch=branch("no", "three")),
    ]
    constants = {"axes": np.array([1, 2]), "flag": np.array(True), "two": np.float32([2]), "three": np.float32([3])}
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    path = tmp_path / "branches.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    model = dataclasses.replace(NET, image_size=8, layout="nhwc", group="tag", mean=(0.0,) * 3, std=(1.0,) * 3)
    batch = draw(2, (8, 8))
    graph = wrap_foreign(read_foreign(path, model), model, LABELS, "identity")
    assert {entry.version for entry in graph.opset_import} == {20}
    assert np.allclose(run_wrapped(graph, batch), 2 * (batch / 255).mean(axis=(1, 2)), atol=1e-5)


def break_nothing(path: Path, proto: onnx.ModelProto) -> None:
    onnx.save(proto, path)


def write_page(path: Path, proto: onnx.ModelProto) -> None:
    path.write_text("<!DOCTYPE html><html>Not found</html>")


def write_empty(path: Path, proto: onnx.ModelProto) -> None:
    path.write_bytes(b"")


def cut_off(path: Path, proto: onnx.ModelProto) -> None:
    path.write_bytes(proto.SerializeToString()[:-100])


def add_input(path: Path, proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 8]))
    onnx.save(proto, path)


def use_custom(path: Path, proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Fancy", "my.ops"
    proto.opset_import.append(helper.make_opsetid("my.ops", 1))
    onnx.save(proto, path)


def take_numbers(path: Path, proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(proto, path)


def take_rows(path: Path, proto: onnx.ModelProto) -> None:
    del proto.graph.input[0].type.tensor_type.shape.dim[1:3]
    onnx.save(proto, path)


def raise_opset(path: Path, proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 99
    onnx.save(proto, path)


def double_output(path: Path, proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Sigmoid", ["out"], ["chances"]))
    proto.graph.output.append(helper.make_tensor_value_info("chances", TensorProto.FLOAT, ["n", 5]))
    onnx.save(proto, path)


def store_outside(path: Path, proto: onnx.ModelProto) -> None:
    onnx.save(proto, path, save_as_external_data=True, location="net.data", size_threshold=0)


@pytest.mark.parametrize(
    ("write", "changes", "message"),
    [
        (write_page, {}, "not an ONNX graph (it starts with b'<!DOCTYPE html><html>Not'); download or export it again"),
        (write_empty, {}, "not an ONNX graph (it is empty); download or export it again"),
        (cut_off, {}, "not an ONNX graph (it starts with"),
        (add_input, {}, "found 2 inputs: `image` (n, 8, 8, 3), `mask` (n, 8); wanted one, the images"),
        (
            use_custom,
            {},
            "ONNX Runtime does not load it: it has no operator my.ops.Fancy; "
            "export the network with standard operators",
        ),
        (take_numbers, {}, "its input `image` is int64; wanted float32, float16, float64 or uint8"),
        (take_rows, {}, "its input `image` is (n, 3); wanted 4 dimensions, nhwc"),
        (raise_opset, {}, "its opset is 99; wanted at most 26, the newest that the kernel loads"),
        (
            double_output,
            {},
            "found several outputs of 5 columns among `out` (1, 5), `chances` (1, 5); wanted one output with one "
            "column per label of 'all', or one output per group, with 3 of tag, 2 of culture",
        ),
        (
            break_nothing,
            {"group": "tag"},
            "found no output of 3 columns among `out` (1, 5); wanted one output with one column per label of 'tag'",
        ),
        (store_outside, {}, "stores its weights in net.data; `build_kernel.py add` makes one file of it"),
        (
            break_nothing,
            {"layout": "nchw"},
            "its input `image` is (n, 8, 8, 3); wanted (batch, 3, 8, 8); give --layout nhwc",
        ),
        (
            break_nothing,
            {"image_size": 16},
            "its input `image` is (n, 8, 8, 3); wanted (batch, 16, 16, 3); "
            "give the --image-size, --channels and --layout that it has",
        ),
        (
            break_nothing,
            {"mean": (0.5,), "std": (0.5,)},
            "its input `image` is (n, 8, 8, 3); wanted (batch, 8, 8, 1); "
            "give the --image-size, --channels and --layout that it has",
        ),
    ],
)
def test_a_graph_that_cannot_be_served_is_refused_in_one_line(
    write: Callable[[Path, onnx.ModelProto], None], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = build_channels_last(tmp_path / "net.onnx")
    write(path, onnx.load(path))
    model = dataclasses.replace(NET, **{"image_size": 8, "layout": "nhwc", **changes})
    with pytest.raises(ExportError) as error:
        wrap_foreign(read_foreign(path, model), model, LABELS, "sigmoid")
    text = str(error.value)
    assert text.startswith(f"{path}: {message}") and "\n" not in text
    assert text.endswith("download or export it again") if "not an ONNX" in message else text == f"{path}: {message}"


def test_bytes_are_not_normalised_by_a_mean(tmp_path: Path) -> None:
    path = build_channels_last(tmp_path / "net.onnx", TensorProto.UINT8)
    with pytest.raises(ExportError) as error:
        read_foreign(path, dataclasses.replace(NET, image_size=8, layout="nhwc"))
    assert str(error.value) == (
        f"{path}: its input `image` is uint8, so that it gets bytes as they are; leave out --mean and --std"
    )
