"""The weights that a training starts from: random ones, timm's pretrained ones, or a checkpoint's."""

from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.manifest.task import Activation
from training.recipe import Recipe
from zoo.checkpoints import StateDict, read_state
from zoo.networks import Network
from zoo.text import flatten_message

# Lowest frequency for a bias: a lower bias would keep a rare label from being learnt.
RAREST = 1e-5


def start_network(network: Network, recipe: Recipe, means: NDArray[np.float64], activation: Activation) -> None:
    """Load the recipe's initial weights into a new network, except a head for other labels.

    A new head predicts the mean of the targets over the training images, `means`: (labels,), for labels their
    frequencies; source: Lin et al., Focal Loss for Dense Object Detection, 2017, section 3.3. Raises TrainingError:
    timm cannot load the weights, or the file is for another architecture.
    """
    set_head_bias(network.module, means, activation)
    state = read_initial(recipe)
    if state is None:
        return
    own, head = network.module.state_dict(), name_head(network.module)
    kept = {
        name: tensor
        for name, tensor in state.items()
        if not (name.startswith(head) and name in own and own[name].shape != tensor.shape)
    }
    try:
        absent, strange = network.module.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise TrainingError(f"`initial`: not weights of {recipe.architecture}: {flatten_message(error)}") from error
    wrong = [*strange, *(name for name in absent if not name.startswith(head))]
    if wrong:
        raise TrainingError(
            f"`initial`: not weights of {recipe.architecture}: "
            f"{len(wrong)} tensors are missing or surplus, such as {wrong[0]}"
        )


def set_head_bias(module: torch.nn.Module, means: NDArray[np.float64], activation: Activation) -> None:
    """Set the head's bias, if it has one, so that the activation of the bias alone is `means`, (labels,)."""
    bias = getattr(module.get_classifier(), "bias", None)  # type: ignore[operator]
    if isinstance(bias, torch.Tensor) and bias.shape == means.shape:
        shares = means.clip(RAREST, 1 - RAREST)
        start = {"sigmoid": np.log(shares / (1 - shares)), "softmax": np.log(shares), "identity": means}[activation]
        with torch.no_grad():
            bias.copy_(torch.from_numpy(start))


def read_initial(recipe: Recipe) -> StateDict | None:
    """Read the initial weights of a recipe; None if it has none."""
    if recipe.initial.checkpoint is not None:
        return read_state(Path(recipe.initial.checkpoint))
    if recipe.initial.pretrained is None:
        return None
    tag = recipe.initial.pretrained
    name = recipe.architecture if tag == "default" else f"{recipe.architecture}.{tag}"
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # an unknown tag, no internet, a broken download: timm raises many types
        raise TrainingError(
            f"`initial.pretrained`: timm cannot load the weights {name}: {flatten_message(error)}; "
            "without internet, set `initial.checkpoint` to their safetensors file"
        ) from error


def name_head(module: torch.nn.Module) -> tuple[str, ...]:
    """Return the prefixes of the head's tensors: timm's names of the classifier."""
    named = module.pretrained_cfg["classifier"]  # type: ignore[index]
    return tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))
