"""Names, sizes and channels that people give for a network of timm."""

import re

import pytest
import timm
import torch

from inference.basics.errors import CheckpointError
from zoo.architectures import named
from zoo.networks import Design, create_network

pytestmark = pytest.mark.usefixtures("one_thread")
VERSION = re.escape(timm.__version__)
UNKNOWN = rf"`architecture`: found '{{}}'; wanted a network of timm {VERSION}; "
TAG = "`architecture`: found the tag "


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_resnet.r160_in1k",
        "timm/test_resnet.r160_in1k",
        "hf-hub:timm/test_resnet.r160_in1k",
        "hf_hub:timm/test_resnet",
    ],
)
def test_a_name_is_taken_as_timm_and_hugging_face_write_it(name: str) -> None:
    module = create_network(Design(name, (64, 64), 5)).module
    wanted = timm.create_model("test_resnet", num_classes=5).state_dict()
    assert {key: tensor.shape for key, tensor in module.state_dict().items()} == {
        key: tensor.shape for key, tensor in wanted.items()
    }


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet18.a1_in22k", 64, TAG + r"'a1_in22k' of resnet18; wanted one of a1_in1k, .* or resnet18 alone$"),
        ("test_resnet.", 64, TAG + r"'' of test_resnet; wanted one of r160_in1k, or test_resnet alone$"),
        ("ResNet18", 64, UNKNOWN.format("ResNet18") + r"did you mean resnet18\?$"),
        ("EfficientNet-B0", 64, UNKNOWN.format("EfficientNet-B0") + r"did you mean efficientnet_b0\?$"),
        (
            "seresnext50_32x4d_wrong",
            64,
            UNKNOWN.format("seresnext50_32x4d_wrong") + r"did you mean seresnext50_32x4d or ",
        ),
        ("hf-hub:owner/net", 64, UNKNOWN.format("hf-hub:owner/net") + r"timm.list_models\(\) lists the names$"),
        ("", 64, UNKNOWN.format("") + r"timm.list_models\(\) lists the names$"),
        (
            "test_vit",
            100,
            r"`image_size`: test_vit does not take 100 px: Input height \(100\) should be divisible by patch size",
        ),
        ("maxvit_nano_rw_256", 100, r"`image_size`: maxvit_nano_rw_256 does not take 100 px: height \(25\) must be"),
        ("test_resnet", 0, r"`image_size`: test_resnet does not take 0 px: "),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_in_one_line(name: str, size: int, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{message}") as error:
        create_network(Design(name, (size, size), 5))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "size"), [("test_vit", (64, 96)), ("test_resnet", (48, 80)), ("test_vit", (64, 64))])
def test_height_and_width_may_differ(name: str, size: tuple[int, int]) -> None:
    module = create_network(Design(name, size, 5)).module
    with torch.inference_mode():
        assert module(torch.zeros(2, 3, *size)).shape == (2, 5)


def test_a_network_of_one_channel_is_created() -> None:
    network = create_network(Design("test_resnet", (64, 64), 5, channels=1))
    assert next(iter(network.module.parameters())).shape[1] == 1
    config = timm.get_pretrained_cfg("test_resnet")
    assert network.mean == pytest.approx((sum(config.mean) / 3,))
    assert network.std == pytest.approx((sum(config.std) / 3,))


def test_a_network_larger_than_an_onnx_file_is_refused_before_memory_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[str] = []
    real = timm.create_model

    def create(name: str, **arguments: object) -> torch.nn.Module:
        created.append(torch.get_default_device().type)
        module: torch.nn.Module = real(name, **arguments)
        return module

    monkeypatch.setattr(named.timm, "create_model", create)
    with pytest.raises(CheckpointError) as error:
        create_network(Design("vit_giant_patch14_224", (224, 224), 5))
    assert str(error.value) == (
        "vit_giant_patch14_224 has 4.04 GB of weights in fp32; an ONNX file holds at most 2 GB: "
        "choose a smaller network"
    )
    assert created == ["meta"]


@pytest.mark.parametrize(
    ("name", "heads"), [("test_resnet", ("fc.",)), ("test_vit", ("head.",)), ("levit_128s", ("head.linear.",))]
)
def test_the_head_of_a_network_is_found(name: str, heads: tuple[str, ...]) -> None:
    assert named.find_heads(named.sketch_architecture(name, {"num_classes": 7}), 7)[:1] == heads


def test_the_head_of_a_network_of_ones_own_is_the_layer_with_its_outputs() -> None:
    own = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 7))
    assert named.find_heads(own, 7) == ("1.",)
