"""Checkpoint files: reads weights in any common wrapper, writes safetensors."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from inference.basics.errors import CheckpointError
from inference.basics.files import replace_file
from zoo.text import flatten_message

WRAPPERS = ("state_dict", "model")

StateDict = Mapping[str, torch.Tensor]


def read_state(path: Path) -> StateDict:
    """Read the weights in a .safetensors file, or in a torch.save file that holds only tensors.

    Removes a `state_dict` or `model` wrapper and a `module.` prefix. Raises CheckpointError naming the file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        loaded: Any
        if path.suffix == ".safetensors":
            loaded = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickle protocols; unreadable files raise below
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: a pickle that holds more than weights, which may run code; save model.state_dict() instead"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: not a checkpoint: {flatten_message(error)[:200]}") from error
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
    state: StateDict = loaded
    return state


def write_checkpoint(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state as safetensors, atomically; the same state gives the same bytes."""
    with replace_file(path) as temporary:
        # Not safetensors' save_file: its files are readable only by their owner.
        temporary.write_bytes(safetensors.torch.save(state))
