"""The weights of a trained network in the precision of its checkpoint."""

import torch

from inference.basics.errors import TrainingError
from training.recipe import StoredPrecision

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


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
