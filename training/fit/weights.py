"""The weights of a trained network: those of the best epoch, in the precision of the checkpoint."""

import math
from typing import Any

import torch

from inference.basics.errors import TrainingError
from training.recipe import StoredPrecision

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class BestWeights:
    """The weights of the epoch with the highest figure; of equal epochs, the first."""

    def __init__(self) -> None:
        self.epoch = 0
        """From 1; 0 before the first."""
        self.figure = -math.inf
        self.weights: dict[str, torch.Tensor] = {}

    def compare(self, figure: float, epoch: int, module: torch.nn.Module) -> None:
        """Keep a copy of the weights if the figure is the highest; NaN counts as the lowest."""
        if not self.weights or figure > self.figure:
            self.figure = -math.inf if math.isnan(figure) else figure
            self.epoch = epoch
            self.weights = {name: tensor.cpu().clone() for name, tensor in module.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return all for a saved state."""
        return {"epoch": self.epoch, "figure": self.figure, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.epoch, self.figure, self.weights = state["epoch"], state["figure"], state["weights"]


def round_weights(module: torch.nn.Module, precision: StoredPrecision) -> dict[str, torch.Tensor]:
    """Return the network's state with floats in `precision`; raises TrainingError: a float that is not finite."""
    state = {
        name: (tensor.to(DTYPES[precision]) if tensor.is_floating_point() else tensor).cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
    }
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise TrainingError(
                f"tensor {name}: found a number that is not finite in {precision}; "
                "train with a lower `optimizer.learning_rate`, or set `precision` to fp32"
            )
    return state
