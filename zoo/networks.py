"""timm networks: created by name, loaded from a checkpoint, with the input that timm's configuration asks for."""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config

from inference.basics.errors import CheckpointError
from inference.images.geometry import FILTERS
from inference.manifest.file import verify_files
from inference.manifest.records import Model
from inference.manifest.values import Interpolation
from zoo.checkpoints import StateDict, read_state
from zoo.text import flatten_message

SHOWN_KEYS = 5


@dataclass(frozen=True)
class Network:
    """A timm network in evaluation mode and float32, and the input that its configuration asks for."""

    module: torch.nn.Module
    mean: tuple[float, ...]
    """Of each channel, for values from 0 to 1."""
    std: tuple[float, ...]
    interpolation: Interpolation


def create_network(architecture: str, image_size: int, outputs: int) -> Network:
    """Create an untrained network with `outputs` labels, and run it once on an empty image.

    Raises CheckpointError: a name unknown to timm, an image size or a configuration that cannot be used.
    """
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists the names"
        wanted_name = f"wanted a network of timm {timm.__version__}"
        raise CheckpointError(f"`architecture`: found {architecture!r}; {wanted_name}; {hint}")
    config = timm.get_pretrained_cfg(architecture)
    # Only these have weights that depend on the image size (a ViT's position embedding).
    sized: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    try:
        module = timm.create_model(architecture, pretrained=False, num_classes=outputs, **sized)
    except Exception as error:  # an unknown tag after the name, or a missing library
        reason = flatten_message(error)
        raise CheckpointError(f"`architecture`: timm cannot create {architecture!r}: {reason}") from error
    wanted: dict[str, Any] = resolve_data_config({}, model=module)  # type: ignore[no-untyped-call]
    if wanted["interpolation"] not in FILTERS:
        raise CheckpointError(
            f"`architecture`: {architecture} needs {wanted['interpolation']!r} resizing; "
            f"the kernel supports {' and '.join(FILTERS)}: choose another architecture"
        )
    try:
        with torch.inference_mode():
            # Some networks take one size only, and some heads do not return (images, labels).
            module.eval()(torch.zeros(1, 3, image_size, image_size)).reshape(1, outputs)
    except Exception as error:
        reason = flatten_message(error)
        raise CheckpointError(f"`image_size`: {architecture} does not take {image_size} px: {reason}") from error
    return Network(module, tuple(wanted["mean"]), tuple(wanted["std"]), wanted["interpolation"])


def load_network(path: Path, architecture: str, image_size: int, outputs: int) -> Network:
    """Create the network and load the checkpoint's weights, which must fit exactly.

    `outputs`: labels of the model's group. Raises CheckpointError naming the file, and the keys that do not fit.
    """
    network = create_network(architecture, image_size, outputs)
    state = read_state(path)
    wanted = network.module.state_dict()
    for key in _list_head_keys(network.module, wanted):
        if key in state and len(state[key]) != outputs:
            raise CheckpointError(
                f"{path}: the head `{key}` has {len(state[key])} outputs; wanted {outputs}, one per label of the group"
            )
    for problem, keys in (("missing", wanted.keys() - state.keys()), ("surplus", state.keys() - wanted.keys())):
        if keys:
            raise CheckpointError(f"{path}: {problem} {_name_keys(keys)}; is it a checkpoint of {architecture}?")
    for key, tensor in state.items():
        if tensor.shape != wanted[key].shape:
            raise CheckpointError(f"{path}: `{key}` is {tuple(tensor.shape)}; wanted {tuple(wanted[key].shape)}")
    network.module.load_state_dict(state)
    return network


def open_network(model: Model, home: Path, outputs: int) -> Network:
    """Load the network of a manifest's model, with the mean, std and interpolation that the manifest declares.

    `home`: the manifest's folder. Raises ManifestError where the checkpoint's hash differs, CheckpointError where there
    is no checkpoint or it does not fit.
    """
    if model.checkpoint is None:
        raise CheckpointError(
            f"model {model.name}: the manifest names no checkpoint; use the manifest at home, not a bundle's"
        )
    verify_files([(f"{model.name}.checkpoint", model.checkpoint)], home)
    network = load_network(home / model.checkpoint.file, model.architecture, model.image_size, outputs)
    return dataclasses.replace(network, mean=model.mean, std=model.std, interpolation=model.interpolation)


def _list_head_keys(module: torch.nn.Module, state: StateDict) -> Sequence[str]:
    classifier = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return [key for key in state if key.rpartition(".")[0] in heads]


def _name_keys(keys: set[str]) -> str:
    shown = ", ".join(f"`{key}`" for key in sorted(keys)[:SHOWN_KEYS])
    more = len(keys) - SHOWN_KEYS
    return f"{shown} and {more} more" if more > 0 else shown
