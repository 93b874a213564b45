"""Networks from designs: of timm and of a factory, with weights, heads and the order of their outputs."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from inference.basics.errors import CheckpointError, ManifestError
from inference.basics.files import hash_file
from inference.manifest.file import read_manifest
from inference.manifest.labels import Labels
from inference.manifest.model import Factory, FileEntry, Model
from tests.conftest import Workshop
from zoo.networks import Build, Design, create_network, load_network, open_network, read_design

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = Labels((10, 11, 12, 13, 14), tuple("abcde"), {"culture": (0, 3), "tag": (1, 2, 4)})
MODEL = Model("own", "test_resnet", "all", 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bilinear")
FACTORY = """
import timm, torch
from torch import nn

class Net(nn.Module):
    def __init__(self, outputs, config=True):
        super().__init__()
        self.backbone = timm.create_model("test_resnet", num_classes=0)
        if not config:
            del self.backbone.pretrained_cfg
        self.culture, self.tag = nn.Linear(self.backbone.num_features, 2), nn.Linear(self.backbone.num_features, 3)

    def forward(self, images):
        features = self.backbone(images)
        return {"tag": self.tag(features), "culture": self.culture(features)}

def build(outputs, config=True):
    return Net(outputs, config).half()

def scale(outputs, factor):
    class Scale(nn.Linear):
        def forward(self, images):
            return super().forward(images.mean((2, 3))) * factor
    return Scale(3, outputs)
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "networks.py").write_text(FACTORY)
    return tmp_path / "networks.py"


def design_own(factory: Path, function: str = "build", **arguments: Any) -> Design:
    build = Build(factory, function, arguments)
    groups = LABELS.groups if function == "build" else {}
    return Design(f"networks.py:{function}", (32, 48), 5, 3, build, tuple(groups.values()), tuple(groups))


def test_a_network_of_timm_has_its_weights_and_its_input(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=5).eval()
    torch.save({"model": {f"module.{key}": tensor for key, tensor in source.state_dict().items()}}, tmp_path / "w.pth")
    network = load_network(tmp_path / "w.pth", Design("test_resnet", (32, 48), 5))
    images = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        assert torch.equal(network.module(images), source(images))
    config = source.pretrained_cfg
    assert (network.mean, network.std) == (config["mean"], config["std"])
    assert (network.interpolation, network.form) == ("bilinear", "`model` without `module.`")


def test_the_order_of_the_outputs_is_undone(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=5).eval()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = dataclasses.replace(MODEL, label_order=(14, 10, 13, 11, 12))
    network = load_network(tmp_path / "w.pth", read_design(model, tmp_path, LABELS))
    assert list(network.module.state_dict()) == list(source.state_dict())
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        ours, theirs = network.module(images), source(images)
    for column, label in enumerate(LABELS.ids):
        assert torch.equal(ours[:, column], theirs[:, model.label_order.index(label)])


def test_a_network_of_ones_own_joins_its_heads_and_keeps_its_names(factory: Path, tmp_path: Path) -> None:
    network = create_network(design_own(factory))
    module: Any = network.module
    state = {key: tensor.contiguous() for key, tensor in module.state_dict().items()}
    assert {"backbone.bn1.weight", "culture.weight", "tag.bias"} < set(state)
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in state.values())
    config = timm.get_pretrained_cfg("test_resnet")
    assert (network.mean, network.std, network.interpolation) == (config.mean, config.std, "bilinear")
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_network(tmp_path / "w.safetensors", design_own(factory)).module
    images = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        features = module.backbone(images)
        assert torch.equal(loaded(images)[:, [0, 3]], module.culture(features))
        assert torch.equal(loaded(images)[:, [1, 2, 4]], module.tag(features))


def test_a_network_without_a_configuration_gets_that_of_imagenet(factory: Path) -> None:
    network = create_network(design_own(factory, config=False))
    assert (network.mean, network.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert network.interpolation == "bilinear"


def test_heads_of_other_shapes_are_refused_with_the_name_of_the_network(factory: Path) -> None:
    design = dataclasses.replace(design_own(factory), heads=((0, 1, 3), (2, 4)))
    with pytest.raises(CheckpointError) as error:
        create_network(design)
    assert str(error.value) == (
        "`architecture`: networks.py:build: the network: head culture has the shape (images, 2); wanted (images, 3)"
    )


def test_weights_that_give_no_finite_output_are_refused(factory: Path, tmp_path: Path) -> None:
    design = design_own(factory, "scale", factor=1e30)
    module = create_network(design).module
    path = tmp_path / "w.pth"
    torch.save({key: torch.full_like(tensor, 1e30) for key, tensor in module.state_dict().items()}, path)
    with pytest.raises(CheckpointError) as error:
        load_network(path, design)
    assert str(error.value) == (
        f"{path}: networks.py:scale with these weights returns NaN or infinity for a random image; "
        "choose another checkpoint of the training"
    )


def test_resizing_that_the_kernel_lacks_is_refused(factory: Path) -> None:
    text = FACTORY.replace(
        "        if not config:",
        "        self.backbone.pretrained_cfg['interpolation'] = 'lanczos'\n        if not config:",
    )
    factory.write_text(text)
    with pytest.raises(CheckpointError, match="needs 'lanczos' resizing; the kernel supports bilinear and bicubic"):
        create_network(design_own(factory))


def test_a_design_is_read_from_the_manifest(factory: Path, tmp_path: Path) -> None:
    own = Factory("networks.py", hash_file(factory), "build", {"config": False})
    model = dataclasses.replace(MODEL, architecture="networks.py:build", factory=own, image_size=(32, 48))
    expected = design_own(factory, config=False)
    assert read_design(model, tmp_path, LABELS) == expected
    tag = read_design(dataclasses.replace(model, group="tag"), tmp_path, LABELS)
    assert (tag.outputs, tag.heads, tag.head_names) == (3, (), ())
    features = dataclasses.replace(MODEL, group="features", outputs=1000, mean=(0.5,), std=(0.2,))
    assert read_design(features, tmp_path, LABELS) == Design("test_resnet", (32, 32), 1000, channels=1)
    factory.write_text(FACTORY + "\n")
    with pytest.raises(ManifestError, match=r"`own\.factory\.sha256`: .*networks\.py: found "):
        read_design(model, tmp_path, LABELS)
    with pytest.raises(CheckpointError, match=r"^model own: test_resnet is a ready-made ONNX graph; wanted a torch"):
        read_design(dataclasses.replace(MODEL, layout="nchw"), tmp_path, LABELS)


def test_a_model_of_the_manifest_is_opened_with_the_declared_input(workshop: Workshop) -> None:
    manifest = read_manifest(workshop.manifest)
    model = dataclasses.replace(manifest.models[0], mean=(0.1, 0.2, 0.3))
    network = open_network(model, workshop.home, LABELS)
    assert (network.mean, network.std, network.form) == ((0.1, 0.2, 0.3), model.std, "plain weights")
    with pytest.raises(CheckpointError, match=r"^model everything: the manifest names no checkpoint"):
        open_network(dataclasses.replace(model, checkpoint=None), workshop.home, LABELS)
    with pytest.raises(ManifestError, match=r"`everything\.checkpoint\.sha256`: "):
        open_network(
            dataclasses.replace(model, checkpoint=FileEntry(f"{model.name}.safetensors", "0" * 64)),
            workshop.home,
            LABELS,
        )
