"""Writes checkpoints as safetensors."""

from pathlib import Path

import safetensors.torch
import torch

from inference.basics.files import replace_file


def write_checkpoint(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state as safetensors, atomically; the same state gives the same bytes."""
    with replace_file(path) as temporary:
        # Not safetensors' save_file: its files are readable only by their owner.
        temporary.write_bytes(safetensors.torch.save(state))
