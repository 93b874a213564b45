"""build_kernel.py add."""

import argparse
from pathlib import Path

from inference.basics.errors import OptionError
from zoo.commands import Command, add_manifest, read_settings

ACTIVATIONS = {"none": "identity", "sigmoid": "sigmoid", "softmax": "softmax"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint and the properties that cannot be read from it."""
    add_manifest(parser)
    parser.add_argument(
        "checkpoint", type=Path, help="weights in any common form, or FILE.onnx, inside the manifest's folder"
    )
    _add_network(parser)
    _add_input(parser)
    _add_outputs(parser)
    parser.add_argument("--name", help="the model's name in the manifest (the checkpoint's file name)")
    parser.add_argument("--fold", type=int, metavar="K", help="the fold that the model was not trained on")
    parser.add_argument(
        "--member", metavar="NAME", help="name that the folds of one network share (the name of NAME_fK with --fold K)"
    )
    parser.add_argument(
        "--oof", type=Path, metavar="FILE", help="out-of-fold predictions NAME.oof.npy, with NAME.oof.ids.txt beside it"
    )
    parser.add_argument("--labels", type=Path, metavar="CSV", help="labels.csv of iMet 2019, to start a manifest")
    parser.add_argument("--train", type=Path, metavar="CSV", help="train.csv of iMet 2019, to start a manifest")


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument("--architecture", metavar="NAME", help="timm's name of the network")
    group.add_argument(
        "--factory",
        metavar="FILE.py:FUNCTION",
        help="FUNCTION(outputs, **arguments) that returns a torch module; one or more heads",
    )
    group.add_argument("--arguments", metavar="JSON", help='arguments of the factory, as in \'{"pool": "gem"}\'')
    group.add_argument(
        "--layout", choices=("nchw", "nhwc"), help="for FILE.onnx: where the channels of its input stand"
    )
    group.add_argument(
        "--no-ema", dest="ema", action="store_false", help="take the plain weights, not their moving average"
    )


def _add_input(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input")
    group.add_argument(
        "--image-size", type=int, nargs="+", required=True, metavar="N", help="side in px, or height and width"
    )
    group.add_argument("--channels", type=int, choices=(3, 1), default=3, help="3 for RGB, 1 for grey (3)")
    group.add_argument(
        "--resize",
        choices=("squash", "crop", "trim", "letterbox"),
        default="squash",
        help="how an image gets the size: squash (default); crop the centre; trim what is beyond twice the size, then "
        "squash; letterbox",
    )
    group.add_argument(
        "--crop-percentage", type=float, default=1.0, metavar="P", help="share that the centre crop keeps (1)"
    )
    group.add_argument(
        "--mean", type=float, nargs="+", metavar="M", help="per channel, for values from 0 to 1 (the network's)"
    )
    group.add_argument("--std", type=float, nargs="+", metavar="S", help="per channel (the network's)")
    group.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="of resizing (the network's)")
    group.add_argument(
        "--views", nargs="+", metavar="VIEW", help="such as hflip, rot90, top_left, scale_125 (identity hflip)"
    )
    group.add_argument(
        "--merge", choices=("mean", "geometric", "maximum"), default="mean", help="of the scores of views (mean)"
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("outputs")
    group.add_argument(
        "--group", help="the group of labels that the head covers, all, or features (all, of a single group)"
    )
    group.add_argument(
        "--outputs",
        type=int,
        default=0,
        metavar="N",
        help="their number, for --group features: only stackers read them",
    )
    group.add_argument("--activation", choices=ACTIVATIONS, help="from the outputs to scores (the task's)")
    group.add_argument(
        "--label-order",
        type=Path,
        metavar="FILE",
        help="labels in the order of the outputs: ids or names, one per line, or a labels.csv (that of the manifest)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Add the model and print its entry."""
    from packing.add.add import add_model
    from packing.add.declare import Addition

    if len(arguments.image_size) > 2:
        raise OptionError(f"--image-size: found {len(arguments.image_size)} numbers; wanted N, or height and width")
    sides = tuple(arguments.image_size)
    arguments.image_size = sides[0] if len(sides) == 1 else sides
    arguments.activation = arguments.activation and ACTIVATIONS[arguments.activation]
    addition = read_settings(Addition, arguments)
    added = add_model(arguments.manifest, addition, arguments.labels, arguments.train)
    model = added.model
    size = "x".join(map(str, model.size if len(sides) > 1 else sides))
    parts = [f"{arguments.manifest}: added {model.name}, {model.architecture} at {size} px for {model.group}"]
    if model.fold is not None:
        parts.append(f"fold {model.fold}")
    if model.fold is not None or model.member is not None:
        parts.append(f"member {model.member or model.name}")
    print("; ".join(filter(None, (", ".join(parts), added.form))))
    for note in added.notes:
        print(f"note: {note}")


ADD = Command(
    "add",
    "add a trained model to the manifest",
    "zoo/resnet50_f0.safetensors --architecture resnet50 --image-size 320 --fold 0 --oof zoo/resnet50_f0.oof.npy",
    add_arguments,
    run,
)
