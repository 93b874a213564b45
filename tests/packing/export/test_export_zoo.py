import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

from inference.basics.errors import ExportError, ImagesError, ManifestError
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.manifest.labels import read_labels
from inference.manifest.records import Model
from inference.models.views import VIEWS
from packing.export.export_zoo import export_model, export_zoo
from packing.export.parity import Examples, Judge
from packing.export.sources import hash_source
from tests.conftest import ROOT, ZOO, Workshop
from zoo.networks import load_network


def make_judge(workshop: Workshop, model: Model, examples: Examples) -> Judge:
    manifest = read_manifest(workshop.manifest)
    labels = read_labels(workshop.home / manifest.labels.file, manifest.labels.groups)
    return Judge(manifest, model, labels, examples)


@pytest.mark.parametrize("name", ZOO)
def test_the_graph_maps_bytes_in_any_batch_to_probabilities(name: str, workshop: Workshop) -> None:
    path = workshop.onnx / f"{name}.onnx"
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    assert graph.ir_version <= 10
    session = onnxruntime.InferenceSession(path)
    image, views = session.get_inputs()
    size = ZOO[name][2]
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [size, size, 3])
    assert (views.name, views.type, len(views.shape)) == ("views", "tensor(int64)", 1)
    assert isinstance(image.shape[0], str) and isinstance(views.shape[0], str), "their number must not be fixed"
    for batch, shown in ((1, [0]), (5, [0, 1])):
        feeds = {"image": np.zeros((batch, size, size, 3), np.uint8), "views": np.array(shown)}
        (answer,) = session.run(None, feeds)
        assert len(answer) == batch and 0 <= answer.min() <= answer.max() <= 1


@pytest.mark.parametrize("flips", [[False], [True], [False, True]])
@pytest.mark.parametrize("name", ZOO)
def test_the_exported_model_matches_torch_on_timms_transform(name: str, flips: list[bool], workshop: Workshop) -> None:
    architecture, _, size, resize = ZOO[name]
    model = next(model for model in read_manifest(workshop.onnx / MANIFEST_NAME).models if model.name == name)
    session = onnxruntime.InferenceSession(workshop.onnx / f"{name}.onnx")
    outputs = session.get_outputs()[0].shape[1]
    network = load_network(workshop.home / f"{name}.safetensors", architecture, size, outputs).module
    options = {"input_size": size, "interpolation": model.interpolation, "mean": model.mean, "std": model.std}
    options |= {"crop_pct": resize.percentage, "crop_mode": "squash" if resize.rule == "squash" else "center"}
    normalised = timm.data.create_transform(**options)
    plain = timm.data.create_transform(**options, normalize=False)
    images = [Image.open(path) for path in sorted(workshop.images.iterdir())]
    shown = torch.stack([normalised(image) for image in images])
    with torch.inference_mode():
        each = [torch.sigmoid(network(shown.flip(3) if flip else shown)).numpy() for flip in flips]
    wanted = np.mean(each, axis=0)
    squares = np.stack([plain(image).numpy().transpose(1, 2, 0) for image in images])
    views = np.array([list(VIEWS).index("hflip" if flip else "identity") for flip in flips])
    (answer,) = session.run(None, {"image": squares, "views": views})
    assert np.abs(answer - wanted).max() < 1e-5
    assert wanted.std(axis=0).max() > 0.01, "the probabilities must differ between images"
    assert model.onnx["fp32"].parity < 1e-5


def test_an_export_contains_no_path_of_the_machine(workshop: Workshop) -> None:
    root = str(ROOT).encode()
    for name in ZOO:
        content = (workshop.onnx / f"{name}.onnx").read_bytes()
        assert root not in content and b"site-packages" not in content


def test_an_export_that_is_up_to_date_is_kept(own_workshop: Workshop) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in own_workshop.onnx.glob("*.onnx")}
    (own_workshop.onnx / "tag.onnx").write_bytes(b"damaged")
    export_zoo(own_workshop.manifest, own_workshop.onnx, own_workshop.images)
    after = {path.name: path.stat().st_mtime_ns for path in own_workshop.onnx.glob("*.onnx")}
    assert [name for name in before if before[name] != after[name]] == ["tag.onnx"]
    onnx.checker.check_model(onnx.load(own_workshop.onnx / "tag.onnx"))


def test_an_export_that_differs_from_torch_fails_and_leaves_no_file(workshop: Workshop, tmp_path: Path) -> None:
    model = read_manifest(workshop.manifest).models[2]

    class Different(torch.nn.Module):
        """A network whose output differs after the export."""

        def __init__(self) -> None:
            super().__init__()
            self.network = timm.create_model("test_efficientnet", num_classes=3).eval()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.network(images)
            return answer + (0 if torch.compiler.is_exporting() else 0.01)

    judge = make_judge(workshop, model, Examples(tuple(sorted(workshop.images.iterdir())[:16])))
    with pytest.raises(
        ExportError, match=r"^model tag: its ONNX differs from torch by 2\.\de-03 on 16 images; wanted at most 1e-04$"
    ):
        export_model(Different(), model, 3, "0" * 64, tmp_path, judge)
    assert list(tmp_path.iterdir()) == []


def test_the_source_hash_depends_on_every_input_of_the_graph(workshop: Workshop) -> None:
    model = read_manifest(workshop.manifest).models[0]
    changed = [
        dataclasses.replace(model, architecture="test_vit"),
        dataclasses.replace(model, image_size=96),
        dataclasses.replace(model, mean=(0.0, 0.0, 0.0)),
        dataclasses.replace(model, std=(1.0, 1.0, 1.0)),
    ]
    sources = {hash_source(one, 5, "sigmoid") for one in (model, *changed)} | {hash_source(model, 6, "sigmoid")}
    assert len(sources | {hash_source(model, 5, "softmax"), hash_source(model, 5, "identity")}) == 8
    other = dataclasses.replace(model, name="other", views=("identity",))
    assert hash_source(other, 5, "sigmoid") == hash_source(model, 5, "sigmoid")


def test_a_checkpoint_changed_after_it_was_added_is_refused(own_workshop: Workshop) -> None:
    path = own_workshop.home / "tag.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ManifestError, match=r"^weights_manifest\.json: `models\[2\]\.checkpoint\.sha256`: "):
        export_zoo(own_workshop.manifest, own_workshop.onnx, own_workshop.images)


def test_parity_needs_sixteen_images(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(ImagesError) as error:
        export_zoo(workshop.manifest, tmp_path / "onnx", tmp_path)
    assert str(error.value) == f"{tmp_path}: found 0 images; wanted 16 for parity; add images"
