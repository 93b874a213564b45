"""The weights that a training starts from: random ones, timm's pretrained ones, or a checkpoint's."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.manifest.task import Activation
from training.recipe import Recipe
from zoo.architectures.named import find_heads, strip_hub
from zoo.checkpoints.read import read_checkpoint
from zoo.networks import Design
from zoo.text import flatten_message

# Lowest frequency for a bias: a lower bias would keep a rare label from being learnt.
RAREST = 1e-5


def start_network(
    module: torch.nn.Module, design: Design, recipe: Recipe, means: NDArray[np.float64], activation: Activation
) -> None:
    """Load the recipe's initial weights into a new network, except heads for other labels.

    A new head predicts the mean of the targets over the training images, `means`: (labels,), for labels their
    frequencies; source: Lin et al., Focal Loss for Dense Object Detection, 2017, section 3.3. Raises TrainingError:
    timm cannot load the weights; CheckpointError: the file has no weights, or those of another network.
    """
    set_head_bias(module, design, means, activation)
    heads = name_heads(module, design)
    if recipe.initial.checkpoint is not None:
        state = read_checkpoint(
            Path(recipe.initial.checkpoint), module, heads=heads, start=True, name=recipe.architecture
        ).state
    elif recipe.initial.pretrained is not None:
        own = module.state_dict()
        state = {
            name: tensor
            for name, tensor in read_pretrained(recipe).items()
            if not (name.startswith(heads) and own[name].shape != tensor.shape)
        }
    else:
        return
    module.load_state_dict(state, strict=False)


def name_heads(module: torch.nn.Module, design: Design) -> tuple[str, ...]:
    """Return the prefixes of the heads' tensors: timm's classifier, or the layers as wide as all labels or a group."""
    widths = {design.outputs, *map(len, design.heads)}
    return tuple(dict.fromkeys(head for width in sorted(widths) for head in find_heads(module, width)))


def set_head_bias(module: torch.nn.Module, design: Design, means: NDArray[np.float64], activation: Activation) -> None:
    """Set the bias of each head so that its activation alone is `means`, (labels,).

    A head without a bias stays as it is, and so do two layers that could both be the head of the same labels.
    """
    shares = means.clip(RAREST, 1 - RAREST)
    start = {"sigmoid": np.log(shares / (1 - shares)), "softmax": np.log(shares), "identity": means}[activation]
    parts = [np.arange(design.outputs), *map(np.array, design.heads)]
    for columns in parts:
        heads = find_heads(module, len(columns))
        bias = getattr(module.get_submodule(heads[0].rstrip(".")), "bias", None) if len(heads) == 1 else None
        is_only = sum(len(part) == len(columns) for part in parts) == 1
        if is_only and isinstance(bias, torch.Tensor) and bias.shape == columns.shape:
            with torch.no_grad():
                bias.copy_(torch.from_numpy(start[columns]))


def read_pretrained(recipe: Recipe) -> dict[str, Any]:
    """Read timm's weights for the recipe's image size and channels, with their own head. Raises TrainingError."""
    base, tag = strip_hub(recipe.architecture), recipe.initial.pretrained
    name = base if tag == "default" else f"{base.partition('.')[0]}.{tag}"
    try:
        config = timm.get_pretrained_cfg(name)
        # Only these have weights that depend on the image size (a ViT's position embedding); timm resizes them.
        sized: dict[str, Any] = {"img_size": recipe.size} if config is not None and config.fixed_input_size else {}
        return timm.create_model(name, pretrained=True, in_chans=recipe.channels, **sized).state_dict()
    except Exception as error:  # an unknown tag, no internet, a broken download: timm raises many types
        raise TrainingError(
            f"`initial.pretrained`: timm cannot load the weights {name}: {flatten_message(error)}; "
            "without internet, set `initial.checkpoint` to a file of them"
        ) from error
