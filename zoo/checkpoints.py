"""Checkpoints of any common wrapping into a timm model that they fit exactly."""

import difflib
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch

from inference.errors import CheckpointError

WRAPPERS = ("state_dict", "model")
SHOWN_KEYS = 5

State = Mapping[str, torch.Tensor]


def create_model(architecture: str, outputs: int, image_size: int) -> torch.nn.Module:
    """An untrained timm model with a head of `outputs` labels; raises CheckpointError with the nearest names."""
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; timm.list_models() names them all"
        raise CheckpointError(f"timm {timm.__version__} has no architecture {architecture!r}{hint}")
    config = timm.get_pretrained_cfg(architecture)
    # Only these have weights that depend on the image size (a ViT's position embedding).
    sized: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    model: torch.nn.Module = timm.create_model(architecture, pretrained=False, num_classes=outputs, **sized)
    return model.eval()


def load_model(path: Path, architecture: str, outputs: int, image_size: int) -> torch.nn.Module:
    """The timm model with the checkpoint's weights, in evaluation mode and float32.

    `outputs`: labels of the model's group. Raises CheckpointError naming the file, and the keys that do not fit.
    """
    model = create_model(architecture, outputs, image_size)
    state = read_state(path)
    wanted = model.state_dict()
    heads = _list_head_keys(model, wanted)
    for key in heads:
        if key in state and len(state[key]) != outputs:
            raise CheckpointError(
                f"{path}: the head `{key}` has {len(state[key])} outputs, wanted {outputs}, one a label of the group"
            )
    for problem, keys in (("lacks", wanted.keys() - state.keys()), ("has surplus", state.keys() - wanted.keys())):
        if keys:
            raise CheckpointError(f"{path}: {problem} {_name_keys(keys)}; is it a checkpoint of {architecture}?")
    for key, tensor in state.items():
        if tensor.shape != wanted[key].shape:
            raise CheckpointError(f"{path}: `{key}` is {tuple(tensor.shape)}, wanted {tuple(wanted[key].shape)}")
    model.load_state_dict(state)
    return model


def read_state(path: Path) -> State:
    """The weights in a .safetensors file, or in a file of torch.save that holds tensors and nothing else.

    A `state_dict` or `model` wrapper and a `module.` prefix are taken off. Raises CheckpointError naming the file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        loaded: Any
        if path.suffix == ".safetensors":
            loaded = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is an error below
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: a pickle that holds more than weights, which may run code; save model.state_dict() instead"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: not a checkpoint: {' '.join(str(error).split())[:200]}") from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if (
        not isinstance(loaded, dict)
        or not loaded
        or not all(isinstance(item, torch.Tensor) for item in loaded.values())
    ):
        raise CheckpointError(f"{path}: found no table of tensors; wanted what model.state_dict() returns")
    if all(key.startswith("module.") for key in loaded):
        loaded = {key.removeprefix("module."): tensor for key, tensor in loaded.items()}
    state: State = loaded
    return state


def _list_head_keys(model: torch.nn.Module, state: State) -> Sequence[str]:
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return [key for key in state if key.rpartition(".")[0] in heads]


def _name_keys(keys: set[str]) -> str:
    shown = ", ".join(f"`{key}`" for key in sorted(keys)[:SHOWN_KEYS])
    more = len(keys) - SHOWN_KEYS
    return f"{shown} and {more} more" if more > 0 else shown
