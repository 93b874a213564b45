"""Multiply-adds and bytes against published figures and against a simple loop."""

from pathlib import Path

import pytest
import torch
from torch import nn

from inference.basics.errors import CheckpointError
from packing.plan.work import Work, count_work, measure_work
from zoo.networks import Build, Design

# G multiply-adds at 224 px, published by the authors of the networks: He et al. 2015 (ResNet), Sandler et al. 2018
# (MobileNetV2), Huang et al. 2016 (DenseNet), Tan and Le 2019 (EfficientNet); SE-ResNeXt and SENet from the
# model zoo of Cadene et al.; 7.97 for SE-ResNeXt101 is from NVIDIA's DeepLearningExamples.
PUBLISHED = {
    "resnet34": 3.6,
    "resnet50": 3.8,
    "mobilenetv2_100": 0.300,
    "efficientnet_b0": 0.39,
    "legacy_seresnext101_32x4d": 7.97,
}


def count_slowly(network: nn.Module, size: int) -> int:
    """Count the multiply-adds of convolutions and linear layers in a loop over output values."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        for _ in range(output.numel()):
            if isinstance(layer, nn.Conv2d):
                total += layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
            elif isinstance(layer, nn.Linear):
                total += layer.in_features

    hooks = [layer.register_forward_hook(count) for layer in network.modules()]
    network(torch.zeros(1, 3, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_multiply_adds_match_published_figures(architecture: str) -> None:
    found = count_work(Design(architecture, (224, 224), 1000)).multiply_adds / 1e9
    assert found == pytest.approx(PUBLISHED[architecture], rel=0.08)


def test_multiply_adds_match_the_slow_count() -> None:
    with torch.device("meta"):
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 12, 1, groups=4),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 5),
        ).eval()
    assert measure_work(network, (16, 16)).multiply_adds == count_slowly(network, 16)


def test_fused_layers_add_no_bytes() -> None:
    with torch.device("meta"):
        convolution = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        plain = nn.Sequential(convolution)
        fused = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU()).eval()
        unfused = nn.Sequential(convolution, nn.SiLU())
        pooled = nn.Sequential(nn.ReLU(), convolution)
    image, features, weights = 3 * 16 * 16, 8 * 16 * 16, 8 * 3 * 3 * 3
    madds = features * 3 * 3 * 3
    moved = 4 * (image + features)
    assert measure_work(plain, (16, 16)) == Work(madds, moved, 4 * weights, widest=moved)
    # Scale, shift, mean and variance of 8 channels, and the count of batches.
    assert measure_work(fused, (16, 16)) == Work(madds, moved, 4 * (weights + 33), widest=moved)
    assert measure_work(unfused, (16, 16)).moved == 4 * (image + 3 * features)
    assert measure_work(unfused, (16, 16)).widest == 4 * 2 * features
    assert measure_work(pooled, (16, 16)).moved == 4 * (3 * image + features)


def test_weights_match_the_network() -> None:
    assert count_work(Design("resnet34", (64, 64), 1000)).weights == pytest.approx(21.8e6 * 4, rel=0.002)


def test_work_grows_with_the_image_size_and_weights_do_not() -> None:
    small, wide, large = (count_work(Design("resnet34", size, 10)) for size in ((128, 128), (128, 256), (256, 256)))
    assert wide.multiply_adds / small.multiply_adds == pytest.approx(2, rel=0.001)
    assert large.multiply_adds / small.multiply_adds == pytest.approx(4, rel=0.001)
    assert large.weights == small.weights


def test_a_grey_network_works_less_in_its_first_layer() -> None:
    colour, grey = (count_work(Design("resnet34", (64, 64), 10, channels)) for channels in (3, 1))
    # The first layer of resnet34 has 64 outputs of 7x7 inputs per channel, at half the size.
    assert colour.multiply_adds - grey.multiply_adds == 2 * 64 * 7 * 7 * 32 * 32


@pytest.mark.parametrize("refuses", [False, True])
def test_a_factory_is_counted_also_if_it_cannot_build_without_memory(refuses: bool, tmp_path: Path) -> None:
    check = "    if torch.zeros(1).device.type == 'meta': raise RuntimeError('no memory')\n" if refuses else ""
    layer = "nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs))"
    file = tmp_path / "my.py"
    file.write_text(f"import torch\nfrom torch import nn\ndef build(outputs):\n{check}    return {layer}\n")
    work = count_work(Design("my.py:build", (10, 12), 5, build=Build(file, "build", {})))
    assert work.multiply_adds == 8 * 10 * 8 * 3 * 9 + 8 * 5
    assert work.weights == 4 * (8 * 3 * 9 + 8 + 8 * 5 + 5)


def test_an_unknown_architecture_is_refused_with_similar_names() -> None:
    with pytest.raises(CheckpointError, match=r"found 'resnet3'; wanted a network of timm .*; did you mean .*resnet34"):
        count_work(Design("resnet3", (64, 64), 10))
