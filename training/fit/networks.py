"""timm networks: made by name, fed as timm says, saved as the kernel's exporter reads them."""

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from timm.data.config import resolve_data_config

from inference.errors import TrainingError
from inference.files import replace_file
from inference.images import FILTERS
from inference.manifest import Model, verify_files
from inference.rules import Interpolation
from training.recipe import Precision

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class Network:
    """A timm network and the input that its configuration asks for: mean and std of values from 0 to 1."""

    module: torch.nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation


def create_network(architecture: str, image_size: int, labels: int) -> Network:
    """An untrained network with one output a label.

    Raises TrainingError: a name that timm lacks, an image size or a configuration that cannot be used.
    """
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists the names"
        raise TrainingError(f"`architecture`: found {architecture!r}, which timm {timm.__version__} lacks; {hint}")
    config = timm.get_pretrained_cfg(architecture)
    # As `build_kernel.py` makes it: only these have weights that depend on the image size.
    sized: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    try:
        module = timm.create_model(architecture, pretrained=False, num_classes=labels, **sized)
    except Exception as error:  # a bad tag after the name, or a network whose library is absent
        raise TrainingError(f"`architecture`: timm cannot make {architecture!r}: {flatten_message(error)}") from error
    wanted: dict[str, Any] = resolve_data_config({}, model=module)  # type: ignore[no-untyped-call]
    if wanted["interpolation"] not in FILTERS:
        raise TrainingError(
            f"`architecture`: {architecture} wants {wanted['interpolation']!r} resizing; "
            f"the kernel knows {' and '.join(FILTERS)}: choose another architecture"
        )
    try:
        with torch.inference_mode():
            # Before minutes of reading images: some networks take one size only, some heads give no (images, labels).
            module.eval()(torch.zeros(1, 3, image_size, image_size)).reshape(1, labels)
    except Exception as error:
        reason = flatten_message(error)
        raise TrainingError(f"`image_size`: {architecture} does not take {image_size} px: {reason}") from error
    module = module.to(memory_format=torch.channels_last)  # an eighth faster on two cores, resnet10t at 64 px
    return Network(module, tuple(wanted["mean"]), tuple(wanted["std"]), wanted["interpolation"])


def load_network(model: Model, home: Path, outputs: int) -> Network:
    """The trained network of a manifest's model, in fp32, ready to predict; `outputs`: labels of its group.

    The input is normalised as the manifest says. Raises ManifestError where the checkpoint is not the one declared,
    TrainingError where there is none or it does not fit the architecture.
    """
    if model.checkpoint is None:
        raise TrainingError(
            f"model {model.name}: the manifest names no checkpoint; use the one at home, not a bundle's"
        )
    verify_files([(f"{model.name}.checkpoint", model.checkpoint)], home)
    network = create_network(model.architecture, model.image_size, outputs)
    path = home / model.checkpoint.file
    try:
        network.module.load_state_dict(read_checkpoint(path))
    except RuntimeError as error:
        raise TrainingError(
            f"{path}: no weights of {model.architecture} for {outputs} labels: {flatten_message(error)}"
        ) from error
    return dataclasses.replace(network, mean=model.mean, std=model.std, interpolation=model.interpolation)


def round_weights(module: torch.nn.Module, precision: Precision) -> dict[str, torch.Tensor]:
    """The network's state with its floats in `precision`; raises TrainingError where one does not fit."""
    state = {
        name: (tensor.to(DTYPES[precision]) if tensor.is_floating_point() else tensor).cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
    }
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise TrainingError(
                f"{name}: not a finite number in {precision}; "
                "train with a lower `optimizer.learning_rate`, or set `precision` to fp32"
            )
    return state


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The state in a safetensors file; raises TrainingError naming it."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: not a safetensors file: {error}") from error


def write_checkpoint(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state as safetensors, whole or not at all; the same state gives the same bytes."""
    with replace_file(path) as temporary:
        temporary.write_bytes(save(state))  # safetensors' own save_file makes files that nobody else may read


def flatten_message(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
