"""Graphs of torch networks with views, in each precision, compared with torch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from timm.models.hiera import MaskUnitAttention

import zoo.onnx_export
from inference.basics.errors import ExportError
from inference.models.views import show_view
from packing.export.graphs.form import Form
from packing.export.graphs.fp16 import halve_graph
from packing.export.graphs.int8 import quantize_graph
from packing.export.graphs.network import build_graph

RANDOM = np.random.default_rng(0)
FORM = Form((40, 56), (32, 48), (0.4,), (0.3,), 5, "sigmoid", ("hflip", "bottom_left", "identity"), "geometric")
EXCHANGED = ((1, 0, 2, 3, 4), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4))
IMAGES = RANDOM.integers(0, 256, (4, 40, 56, 3), dtype=np.uint8)


class Small(torch.nn.Module):
    """A grey network that reads its input twice: whole, and at half the size; a hook turns its outputs round."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.whole, self.small = torch.nn.Conv2d(1, 8, 3, 2), torch.nn.Conv2d(1, 8, 3, 2)
        self.head = torch.nn.Linear(16, 5)
        self.register_forward_hook(lambda module, given, answer: answer.flip(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = torch.nn.functional.avg_pool2d(images, 2)
        parts = [self.whole(images).relu().mean((2, 3)), self.small(half).relu().mean((2, 3))]
        answer: torch.Tensor = self.head(torch.cat(parts, dim=1)) * 8
        return answer


def run(graph: onnx.ModelProto, views: list[int], images: np.ndarray = IMAGES) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"image": images, "views": np.array(views)})
    assert answer.dtype == np.float32
    return np.asarray(answer)


def ask_torch(network: torch.nn.Module, cut: str) -> np.ndarray:
    """Return the probabilities in double precision of what Pillow shows in grey."""
    shown = [np.asarray(Image.fromarray(image).convert("L")) / 255 for image in show_view(IMAGES, cut, (32, 48))]
    given = (torch.from_numpy(np.stack(shown))[:, None] - 0.4) / 0.3
    with torch.inference_mode():
        logits: np.ndarray = network.double().forward(given).numpy()[:, ::-1]  # without the hook
    return 1 / (1 + np.exp(-logits))


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return build_graph(Small(), dataclasses.replace(FORM, exchanged=EXCHANGED))


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """(views, images, labels): the scores of each view, exchanged back."""
    scores = np.stack([ask_torch(Small(), cut)[:, places] for cut, places in zip(FORM.cuts, EXCHANGED, strict=True)])
    assert scores.std(axis=1).min() > 1e-3, "the scores must differ between images"
    assert np.abs(scores[0] - scores[2]).max() > 0.01, "and between views"
    return scores


@pytest.mark.parametrize("views", [[2], [0], [1, 0], [0, 1, 2]])
def test_a_grey_network_of_any_height_and_width_matches_torch(
    views: list[int], graph: onnx.ModelProto, wanted: np.ndarray
) -> None:
    onnx.checker.check_model(graph, full_check=True)
    mean = np.exp(np.log(wanted[views]).mean(axis=0))
    np.testing.assert_allclose(run(graph, views), mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_have_the_same_views(
    precision: str, graph: onnx.ModelProto, wanted: np.ndarray, tmp_path: Path
) -> None:
    if precision == "fp16":
        reduced = halve_graph(graph)
    else:
        onnx.save(graph, tmp_path / "fp32.onnx")
        quantize_graph(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [IMAGES], 0, 2)
        reduced = onnx.load(tmp_path / "int8.onnx")
    notes = {one.key: one.value for one in reduced.metadata_props}
    assert (notes["cuts"], notes["merge"]) == (json.dumps(FORM.cuts), "geometric")
    limit = {"fp16": 2e-3, "int8": 0.05}[precision]
    for views in ([2], [0, 1, 2]):
        mean = np.exp(np.log(wanted[views]).mean(axis=0))
        np.testing.assert_allclose(run(reduced, views), mean, rtol=0, atol=limit)
    types = {tensor.data_type for tensor in reduced.graph.initializer if tensor.name.startswith("network.")}
    assert onnx.TensorProto.FLOAT not in types or precision == "int8"
    ends = [node for node in reduced.graph.node if node.op_type in ("Log", "Exp", "Max", "GatherElements", "Sigmoid")]
    inferred = onnx.shape_inference.infer_shapes(reduced, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    assert len(ends) == 5 and {kinds[node.output[0]] for node in ends} == {onnx.TensorProto.FLOAT}


class Attentive(torch.nn.Module):
    """Hiera's attention, whose fused form torch cannot trace with an open batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Linear(8, 5)
        self.attention = MaskUnitAttention(8, 8, 2, q_stride=1, window_size=4, use_mask_unit_attn=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        answer: torch.Tensor = self.head(self.attention(tokens).mean(1))
        return answer


def test_attention_that_cannot_be_traced_is_traced_in_its_other_form(monkeypatch: pytest.MonkeyPatch) -> None:
    fused: list[bool] = []
    real = zoo.onnx_export._trace

    def trace(module: torch.nn.Module, *given: Any) -> onnx.ModelProto:
        fused.append(network.attention.fused_attn)
        return real(module, *given)

    monkeypatch.setattr(zoo.onnx_export, "_trace", trace)
    network = Attentive().eval()
    form = Form((16, 16), (16, 16), (0.5,) * 3, (0.5,) * 3, 5, "identity")
    images = RANDOM.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    answer = run(build_graph(network, form), [0], images)
    assert fused == [True, False] and network.attention.fused_attn, "the network itself stays as it was"
    with torch.inference_mode():
        wanted = network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1).numpy()
    np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-5)


class Picky(torch.nn.Module):
    """A network that takes multiples of 32 px only."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] % 32:
            raise AssertionError(f"needs a size divisible by 32,\n found {images.shape[-1]}\n\nmore")
        return images.mean((2, 3))


def test_a_network_that_fails_is_refused_with_its_cause() -> None:
    with pytest.raises(ExportError) as error:
        build_graph(Picky(), Form((8, 40), (8, 40), (0.5,) * 3, (0.5,) * 3, 3, "identity"))
    assert str(error.value) == "torch cannot export this network: needs a size divisible by 32, found 40"


def test_a_network_too_large_for_an_onnx_file_is_refused_before_it_is_traced() -> None:
    with torch.device("meta"):
        network = torch.nn.Linear(30_000, 20_000)
    with pytest.raises(ExportError) as error:
        build_graph(network, FORM)
    assert str(error.value) == ("found weights of 2.4 GB; an ONNX file has at most 2.1 GB; choose a smaller network")
