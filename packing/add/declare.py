"""The manifest's entry of a new model, from what the user states, before its network is built."""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.basics.errors import ManifestError, OptionError
from inference.manifest.file import parse_manifest
from inference.manifest.labels import Labels
from inference.manifest.model import ALL, FEATURES, Factory, Model, Resize
from inference.manifest.records import Manifest
from inference.manifest.task import Activation
from inference.manifest.values import GraphLayout, Interpolation, Merge, ResizeRule
from packing.add.label_order import read_label_order
from packing.add.names import choose_member
from zoo.edit import declare_file, grow_manifest

ONNX = ".onnx"
UNKNOWN = 0.5  # mean and std until the network is built
OPTIONS = {"resize.percentage": "--crop-percentage", "resize.rule": "--resize", "factory.arguments": "--arguments"}


@dataclass(frozen=True)
class Addition:
    """What the user states about a model; the rest is computed."""

    checkpoint: Path
    """Weights of a torch network, or an ONNX graph."""
    architecture: str | None
    """timm's name of the network; None: `factory` builds it, or it is an ONNX graph."""
    image_size: int | tuple[int, ...]
    """Side of a square input, or height and width, px."""
    group: str | None = None
    """Group of labels that the head covers, 'all' or 'features'; None: all, if the labels have one group."""
    name: str | None = None
    """None: the file name of the checkpoint."""
    resize: ResizeRule = "squash"
    crop_percentage: float = 1.0
    """Share of the resized image that the centre crop keeps."""
    fold: int | None = None
    """The fold that the model was not trained on."""
    oof: Path | None = None
    """Out-of-fold predictions NAME.oof.npy, with NAME.oof.ids.txt beside it."""
    factory: str | None = None
    """FILE.py:FUNCTION that builds the network."""
    arguments: str | None = None
    """JSON object of the factory's arguments."""
    outputs: int = 0
    """Number of outputs, for group 'features'."""
    channels: int = 3
    member: str | None = None
    views: tuple[str, ...] | None = None
    """None: identity and hflip."""
    merge: Merge = "mean"
    mean: tuple[float, ...] | None = None
    """None: the network's, also for `std` and `interpolation`."""
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    activation: Activation | None = None
    """None: the task's."""
    ema: bool = True
    label_order: Path | None = None
    """File with the labels in the order of the network's outputs."""
    layout: GraphLayout | None = None
    """Of an ONNX graph."""


def declare_model(addition: Addition, name: str, manifest: Manifest, labels: Labels, home: Path) -> Model:
    """Return the entry of a new model, whose mean, std and interpolation are those of `addition` or unknown.

    Raises VitrineError: an option is missing or invalid, or a file is missing or outside of `home`.
    """
    check_origin(addition)
    group = choose_group(addition.group, labels)
    factory = read_factory(addition.factory, addition.arguments, home) if addition.factory else None
    if addition.label_order and group == FEATURES:
        raise OptionError(
            f"--label-order: found a file; wanted none for --group {FEATURES}, whose outputs are no labels"
        )
    model = Model(
        name=name,
        architecture=f"{factory.file}:{factory.function}" if factory else addition.architecture or "ONNX",
        group=group,
        image_size=addition.image_size,
        mean=spread(addition.mean, addition.channels, "--mean") or (UNKNOWN,) * addition.channels,
        std=spread(addition.std, addition.channels, "--std") or (UNKNOWN,) * addition.channels,
        interpolation=addition.interpolation or "bilinear",
        resize=Resize(addition.resize, addition.crop_percentage),
        views=Model.views if addition.views is None else tuple(addition.views),
        merge=addition.merge,
        fold=addition.fold,
        factory=factory,
        layout=addition.layout,
        activation=addition.activation,
        outputs=addition.outputs,
        label_order=read_label_order(addition.label_order, labels, group) if addition.label_order else (),
        ema=addition.ema,
        checkpoint=declare_file(addition.checkpoint, home),
    )
    return dataclasses.replace(model, member=choose_member(addition.member, model, manifest))


def check_origin(addition: Addition) -> None:
    """Check that it is stated what builds the network. Raises OptionError."""
    is_graph = addition.checkpoint.suffix.lower() == ONNX
    if is_graph and addition.layout is None:
        raise OptionError(
            f"{addition.checkpoint}: --layout: missing; wanted nchw (images as (batch, channels, height, width), as "
            "torch exports them) or nhwc (channels last)"
        )
    if addition.layout and not is_graph:
        raise OptionError(
            f"{addition.checkpoint}: --layout: found {addition.layout}; it is only for files named *{ONNX}"
        )
    if is_graph and addition.factory:
        raise OptionError(f"{addition.checkpoint}: --factory: an ONNX graph is a network already; leave it out")
    if not is_graph and not (addition.architecture or addition.factory):
        raise OptionError(
            "--architecture: missing; wanted timm's name of the network, or --factory FILE.py:FUNCTION for one of your "
            "own"
        )
    if addition.architecture and addition.factory:
        raise OptionError("--factory: found beside --architecture; wanted one of them")
    if addition.arguments is not None and not addition.factory:
        raise OptionError("--arguments: found without --factory; they are the arguments of its function")


def choose_group(given: str | None, labels: Labels) -> str:
    """Return the group that a head covers: the given one, or all labels. Raises ManifestError: unknown, or missing."""
    if given is None and len(labels.groups) == 1:
        return ALL
    if given not in (ALL, FEATURES, *labels.groups):
        found = "missing" if given is None else f"found {given!r}"
        raise ManifestError(f"--group: {found}; wanted one of: {ALL}, {', '.join(labels.groups)}, {FEATURES}")
    return given


def read_factory(text: str, arguments: str | None, home: Path) -> Factory:
    """Return the entry of FILE.py:FUNCTION with a JSON object of arguments.

    Raises OptionError: the form is wrong; ManifestError: the file is missing or outside of `home`.
    """
    file, colon, function = text.rpartition(":")
    if not (colon and file.endswith(".py") and function.isidentifier()):
        raise OptionError(f"--factory: found {text!r}; wanted FILE.py:FUNCTION, as in my_networks.py:build")
    try:
        given: Any = json.loads(arguments or "{}")
    except ValueError as error:
        raise OptionError(f'--arguments: not JSON: {error}; wanted an object, as in \'{{"pool": "gem"}}\'') from error
    if not isinstance(given, dict):
        raise OptionError(f'--arguments: found {arguments}; wanted a JSON object, as in \'{{"pool": "gem"}}\'')
    entry = declare_file(Path(file), home)
    return Factory(entry.file, entry.sha256, function, given)


def spread(numbers: tuple[float, ...] | None, channels: int, option: str) -> tuple[float, ...] | None:
    """Return one number per channel; a single one is that of each. Raises OptionError."""
    if numbers is None:
        return None
    if len(numbers) not in (1, channels):
        wanted = "1 number, as --channels is 1" if channels == 1 else "3 numbers, or 1 for all channels"
        raise OptionError(f"{option}: found {len(numbers)} numbers; wanted {wanted}")
    return tuple(numbers) * (channels // len(numbers))


def check_declared(manifest: Manifest, model: Model) -> None:
    """Check that the manifest may have the model. Raises ManifestError naming the model and the option."""
    index = len(manifest.models)
    try:
        parse_manifest(json.loads(json.dumps(dataclasses.asdict(grow_manifest(manifest, model)))))
    except ManifestError as error:

        def name_option(found: re.Match[str]) -> str:
            return OPTIONS.get(found[1], f"--{found[1].replace('_', '-')}")

        text = re.sub(rf"`models\[{index}\]\.([a-z_.]+)[^`]*`", name_option, str(error))
        raise ManifestError(f"model {model.name}: {text}") from error
