"""The last step of a network: from its outputs to scores."""

import torch

from inference.manifest.task import Activation


def activate(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Return scores of the same shape, (images, labels); softmax: each row adds up to 1."""
    if activation == "sigmoid":
        return logits.sigmoid()
    return logits.softmax(dim=-1) if activation == "softmax" else logits
