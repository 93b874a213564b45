"""timm's networks by name: created with the size, the outputs and the channels that a design asks for."""

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch

from inference.basics.errors import CheckpointError
from inference.manifest.values import Size
from zoo.text import flatten_message

# Names of timm's repositories on Hugging Face; what follows is a name of timm.
HUB_PREFIXES = ("hf-hub:timm/", "hf_hub:timm/", "timm/")
FLOAT_BYTES = 4
LARGEST = 2**31 - 1
"""Bytes of weights: an ONNX file is one protobuf message, which ends there."""


def create_architecture(name: str, outputs: int, size: Size, channels: int = 3) -> torch.nn.Module:
    """Create an untrained network of timm with `outputs` labels for images of `size`.

    `name`: as timm.list_models() or Hugging Face write it, as in resnet18, resnet18.a1_in1k, hf-hub:timm/resnet18.
    Raises CheckpointError: a name or tag unknown to timm, more weights than an ONNX file holds (before memory is
    allocated for them), or arguments that the network does not take.
    """
    short = strip_hub(name)
    _check_name(short)
    arguments: dict[str, Any] = {"num_classes": outputs}
    if channels != 3:
        arguments["in_chans"] = channels
    try:
        sketch = sketch_architecture(short, arguments)
        refuse_large(name, sketch)
        # Only these have weights that depend on the image size (a ViT's position embedding).
        if sketch.pretrained_cfg["fixed_input_size"]:  # type: ignore[index]
            arguments["img_size"] = size[0] if size[0] == size[1] else size
        elif torch.get_default_device().type == "meta":
            return sketch
        return _create(short, arguments)
    except CheckpointError:
        raise
    except Exception as error:  # a size that the network does not take, or a missing library
        wanted = f" for {describe_size(size)}" if "img_size" in arguments else ""
        raise CheckpointError(
            f"`architecture`: timm cannot create {name!r}{wanted}: {flatten_message(error)}"
        ) from error


def sketch_architecture(name: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Create a network of timm on the meta device: its tensors have shapes but no memory."""
    with torch.device("meta"):
        return _create(name, arguments)


def strip_hub(name: str) -> str:
    """Return timm's own name of an architecture that is named as on Hugging Face."""
    for prefix in HUB_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def refuse_large(name: str, module: torch.nn.Module) -> None:
    """Raise CheckpointError if the weights of a network do not fit into an ONNX file."""
    size = FLOAT_BYTES * sum(tensor.numel() for tensor in module.state_dict().values())
    if size > LARGEST:
        raise CheckpointError(
            f"{name} has {size / 1e9:.2f} GB of weights in fp32; an ONNX file holds at most 2 GB: "
            "choose a smaller network"
        )


def find_heads(module: torch.nn.Module, outputs: int) -> tuple[str, ...]:
    """Return the prefixes of the tensors of a network's head, as in `fc.`.

    They are timm's classifiers where the network names them, else the layers with `outputs` outputs.
    """
    names = set(dict(module.named_modules()))
    named = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    heads = [one for one in ((named,) if isinstance(named, str) else named) if one in names]
    if not heads:
        layers: Mapping[str, torch.nn.Module] = dict(module.named_modules())
        heads = [one for one, layer in layers.items() if getattr(layer, "out_features", None) == outputs]
    return tuple(f"{head}." for head in heads)


def describe_size(size: Sequence[int]) -> str:
    """Return a size as text: 224 px, or 480x640 px (height, width)."""
    return f"{size[0]} px" if size[0] == size[1] else f"{size[0]}x{size[1]} px (height, width)"


def _create(name: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about old names of networks, which timm maps to new ones
        module: torch.nn.Module = timm.create_model(name, pretrained=False, **arguments)
    return module


def _check_name(name: str) -> None:
    """Raise CheckpointError unless timm has the network, and the tag of its weights if one is named."""
    base, dot, tag = name.partition(".")
    if not timm.is_model(base):
        known = timm.list_models()
        # Names differ in case more often than in letters: ResNet18, EfficientNet_B0.
        lower = base.lower().replace("-", "_")
        near = [lower] if timm.is_model(lower) else difflib.get_close_matches(lower, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists the names"
        raise CheckpointError(f"`architecture`: found {name!r}; wanted a network of timm {timm.__version__}; {hint}")
    if dot:
        tags = [one.partition(".")[2] for one in timm.list_models(f"{base}.*", pretrained=True)]
        if tag not in tags:
            choice = f"one of {', '.join(tags)}, or" if tags else "no tag:"
            raise CheckpointError(f"`architecture`: found the tag {tag!r} of {base}; wanted {choice} {base} alone")
