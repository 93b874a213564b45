"""Losses of multilabel networks: functions of logits and targets, (images, labels) each, that return one number."""

from collections.abc import Callable

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from training.recipe import LossSettings

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_loss(loss: LossSettings) -> LossFunction:
    """Return the loss function of a recipe."""
    functions: dict[str, LossFunction] = {
        "bce": lambda logits, targets: smooth_cross_entropy(logits, targets, loss.smoothing),
        "focal": lambda logits, targets: focal_loss(logits, targets, loss.gamma),
        "lovasz": lovasz_hinge,
        "focal_lovasz": lambda logits, targets: (
            focal_loss(logits, targets, loss.gamma) + loss.lovasz * lovasz_hinge(logits, targets)
        ),
    }
    return functions[loss.name]


def smooth_cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return binary cross-entropy averaged over images and labels; `smoothing` moves targets towards 0.5.

    Source of the smoothing: Szegedy et al., Rethinking the Inception Architecture, 2016, for two classes.
    """
    return binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)


def focal_loss(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return (1 - p)^gamma times cross-entropy, p: probability of the truth; summed over labels, mean over images.

    Method: Lin et al., Focal Loss for Dense Object Detection, 2017, without their alpha. Summed over labels because
    the mean over a thousand labels, nearly all of them easy negatives, is too small compared with other losses.
    """
    signed = logits * (2 * targets - 1)
    # 1 - p = sigmoid(-signed); written as exp(gamma logsigmoid), the gradient is finite for p = 1.
    weight = torch.exp(gamma * torch.nn.functional.logsigmoid(-signed))
    return -(weight * torch.nn.functional.logsigmoid(signed)).sum(dim=1).mean()


def lovasz_hinge(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the Lovász extension of each image's Jaccard loss over its labels, on hinge errors; mean over images.

    Method: Berman, Rannen Triki and Blaschko, The Lovász-Softmax Loss, 2018, section 3; an image's labels take
    the place of the paper's pixels. For an image without labels, the loss is its highest error.
    """
    errors = 1 - logits * (2 * targets - 1)
    ranked, order = errors.sort(dim=1, descending=True)
    truth = targets.gather(1, order)
    intersection = truth.sum(dim=1, keepdim=True) - truth.cumsum(dim=1)
    union = truth.sum(dim=1, keepdim=True) + (1 - truth).cumsum(dim=1)
    jaccard = 1 - intersection / union
    slopes = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], dim=1)
    return (ranked.relu() * slopes).sum(dim=1).mean()
