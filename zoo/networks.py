"""Networks: designed by a manifest or a command, created by timm or by a factory, loaded from a checkpoint."""

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from timm.data.config import resolve_data_config
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from inference.basics.errors import CheckpointError
from inference.manifest.file import verify_files
from inference.manifest.labels import Labels
from inference.manifest.model import ALL, FileEntry, Model
from inference.manifest.values import Interpolation, Size
from zoo.architectures.factory import build_module
from zoo.architectures.heads import join_heads
from zoo.architectures.named import create_architecture, describe_size, find_heads, refuse_large
from zoo.checkpoints.read import read_checkpoint
from zoo.text import flatten_message

SEED = 0
"""Of the image that a loaded network is run on."""


@dataclass(frozen=True)
class Build:
    """A function of one's own that builds a network: FUNCTION(outputs, **arguments) -> torch.nn.Module."""

    file: Path
    function: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Design:
    """What a network is built from, before its weights."""

    architecture: str
    """timm's name, or FILE:FUNCTION of the factory."""
    size: Size
    """Height and width of the input, px."""
    outputs: int
    channels: int = 3
    """3 for RGB, 1 for grey."""
    build: Build | None = None
    """None: timm creates the network."""
    heads: tuple[tuple[int, ...], ...] = ()
    """Columns of each group's labels, for networks with one head per group; (): one head."""
    head_names: tuple[str, ...] = ()
    """Names of these groups, for networks that return a dict."""
    order: tuple[int, ...] = ()
    """For each of our outputs, the network's output; (): they are in our order."""


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode and float32, and the input that it asks for."""

    module: torch.nn.Module
    """Of normalised images (images, channels, height, width), it returns (images, outputs) in our order."""
    mean: tuple[float, ...]
    """Of each channel, for values from 0 to 1."""
    std: tuple[float, ...]
    interpolation: Interpolation
    form: str = ""
    """What the checkpoint was recognised as, in one line."""


def read_design(model: Model, home: Path, labels: Labels) -> Design:
    """Return the design of a manifest's model; `home`: the manifest's folder.

    Raises ManifestError where the factory's hash differs, CheckpointError where the model is a ready-made ONNX graph.
    """
    if model.layout is not None:
        raise CheckpointError(
            f"model {model.name}: {model.architecture} is a ready-made ONNX graph; wanted a torch network"
        )
    build = None
    if model.factory is not None:
        entry = FileEntry(model.factory.file, model.factory.sha256)
        verify_files([(f"{model.name}.factory", entry)], home)
        build = Build(home / entry.file, model.factory.function, model.factory.arguments)
    own = [labels.ids[column] for column in labels.columns(model.group)]
    several = build is not None and model.group == ALL and len(labels.groups) > 1
    return Design(
        model.architecture,
        model.size,
        labels.count_outputs(model),
        model.channels,
        build,
        tuple(labels.groups.values()) if several else (),
        tuple(labels.groups) if several else (),
        tuple(map(model.label_order.index, own)) if model.label_order else (),
    )


def create_network(design: Design) -> Network:
    """Create an untrained network, and run it once on an empty image.

    The mean, std and interpolation are those of timm's configuration; a factory's network takes them from the first of
    its modules that has one, else it gets those of ImageNet and bilinear, which torchvision and most training code use.
    Raises CheckpointError: the network cannot be built, does not take its size, or is larger than an ONNX file.
    """
    if design.build is None:
        module = create_architecture(design.architecture, design.outputs, design.size, design.channels)
    else:
        module = build_module(design.build.file, design.build.function, design.build.arguments, design.outputs)
        refuse_large(design.architecture, module)
        module = module.float()
    if design.build is not None or design.order:
        join_heads(module, design.outputs, design.heads, design.head_names, design.order)
    network = Network(module.eval(), *_read_input(module, design))
    _run_once(network, design, torch.zeros(1, design.channels, *design.size))
    return network


def load_network(path: Path, design: Design, ema: bool = True) -> Network:
    """Create the network, load the checkpoint's weights, which must fit exactly, and run it once.

    `ema`: take the moving average of a checkpoint that has both. Raises CheckpointError naming the file: weights that
    do not fit, with the keys, or outputs that are not finite.
    """
    network = create_network(design)
    heads = find_heads(network.module, design.outputs)
    checkpoint = read_checkpoint(path, network.module, ema, heads, name=design.architecture)
    network.module.load_state_dict(checkpoint.state)
    image = torch.randn(1, design.channels, *design.size, generator=torch.Generator().manual_seed(SEED))
    outputs = _run_once(network, design, image)
    if not bool(outputs.isfinite().all()):
        raise CheckpointError(
            f"{path}: {design.architecture} with these weights returns NaN or infinity for a random image; "
            "choose another checkpoint of the training"
        )
    return dataclasses.replace(network, form=checkpoint.form)


def open_network(model: Model, home: Path, labels: Labels) -> Network:
    """Load the network of a manifest's model, with the mean, std and interpolation that the manifest declares.

    `home`: the manifest's folder. Raises ManifestError where a hash differs, CheckpointError where there is no
    checkpoint or it does not fit.
    """
    if model.checkpoint is None:
        raise CheckpointError(
            f"model {model.name}: the manifest names no checkpoint; use the manifest at home, not a bundle's"
        )
    design = read_design(model, home, labels)
    verify_files([(f"{model.name}.checkpoint", model.checkpoint)], home)
    network = load_network(home / model.checkpoint.file, design, model.ema)
    return dataclasses.replace(network, mean=model.mean, std=model.std, interpolation=model.interpolation)


def _read_input(module: torch.nn.Module, design: Design) -> tuple[tuple[float, ...], tuple[float, ...], Interpolation]:
    """Return the mean, std and interpolation; those of a grey network are the mean over the colours."""
    config = next((one.pretrained_cfg for one in module.modules() if getattr(one, "pretrained_cfg", None)), None)
    if config is None:
        wanted: dict[str, Any] = {
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "interpolation": "bilinear",
        }
    else:
        wanted = resolve_data_config({}, pretrained_cfg=config)  # type: ignore[no-untyped-call]
    if wanted["interpolation"] not in get_args(Interpolation):
        raise CheckpointError(
            f"`architecture`: {design.architecture} needs {wanted['interpolation']!r} resizing; "
            f"the kernel supports {' and '.join(get_args(Interpolation))}: choose another architecture"
        )
    mean, std = (tuple(map(float, wanted[key])) for key in ("mean", "std"))
    if design.channels == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return mean, std, wanted["interpolation"]


def _run_once(network: Network, design: Design, image: torch.Tensor) -> torch.Tensor:
    """Return the outputs for one image, (1, outputs). Raises CheckpointError."""
    name, taken = design.architecture, describe_size(design.size)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the network's own code
            found = network.module(image)
    except CheckpointError as error:  # of the heads
        raise CheckpointError(f"`architecture`: {name}: {error}") from error
    except Exception as error:  # some networks take one size only
        said = f"`image_size`: {name} does not take" if design.build is None else f"`factory`: {name} fails at"
        raise CheckpointError(f"{said} {taken}: {flatten_message(error)}") from error
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != (1, design.outputs):
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise CheckpointError(
            f"`architecture`: {name} at {taken} returns {shape}; wanted (1, {design.outputs}), one number per label"
        )
    return found
