"""build_kernel.py add."""

import argparse
from pathlib import Path

from zoo.commands import Command, add_manifest, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint and the properties that cannot be read from it."""
    add_manifest(parser)
    parser.add_argument(
        "checkpoint", type=Path, help=".safetensors or a state dict of torch.save, inside the manifest's folder"
    )
    parser.add_argument("--architecture", required=True, help="timm's name of the network")
    parser.add_argument("--image-size", type=int, required=True, metavar="N", help="side of the square input, px")
    parser.add_argument("--group", help="the group of labels that the head covers, or 'all' (all, of a single group)")
    parser.add_argument("--name", help="the model's name in the manifest (the checkpoint's file name)")
    parser.add_argument(
        "--resize", choices=("squash", "crop"), default="squash", help="how an image becomes a square (squash)"
    )
    parser.add_argument(
        "--crop-percentage", type=float, default=1.0, metavar="P", help="share that the centre crop keeps (1)"
    )
    parser.add_argument("--fold", type=int, metavar="K", help="the fold that the model was not trained on")
    parser.add_argument(
        "--oof", type=Path, metavar="FILE", help="out-of-fold predictions NAME.oof.npy, with NAME.oof.ids.txt beside it"
    )
    parser.add_argument("--labels", type=Path, metavar="CSV", help="labels.csv of iMet 2019, to start a manifest")
    parser.add_argument("--train", type=Path, metavar="CSV", help="train.csv of iMet 2019, to start a manifest")


def run(arguments: argparse.Namespace) -> None:
    """Add the model and print its entry."""
    from packing.add.add import Addition, add_model

    addition = read_settings(Addition, arguments)
    model = add_model(arguments.manifest, addition, arguments.labels, arguments.train)
    print(f"{arguments.manifest}: added {model.name}, {model.architecture} at {model.image_size} px for {model.group}")


ADD = Command(
    "add",
    "add a trained model to the manifest",
    "zoo/resnet50_f0.safetensors --architecture resnet50 --image-size 320 --fold 0 --oof zoo/resnet50_f0.oof.npy",
    add_arguments,
    run,
)
