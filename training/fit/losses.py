"""Losses of multilabel networks: each from logits and targets, (images, labels), to one number."""

from collections.abc import Callable

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from training.recipe import LossSettings

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_loss(loss: LossSettings) -> LossFunction:
    """The function that a recipe asks for."""
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
    """Binary cross-entropy, averaged over images and labels; targets are drawn to one half by `smoothing`.

    Source of the smoothing: Szegedy et al., Rethinking the Inception Architecture, 2016, for two classes.
    """
    return binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)


def focal_loss(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """Cross-entropy times (1 - p)^gamma, p the probability of the truth; summed over labels, averaged over images.

    Method: Lin et al., Focal Loss for Dense Object Detection, 2017, without their alpha. Summed over labels because
    the mean over a thousand labels, nearly all of them easy negatives, is too small beside other losses.
    """
    signed = logits * (2 * targets - 1)
    # (1 - p) = sigmoid(-signed); as exp(gamma logsigmoid) its gradient stays finite where p is 1.
    weight = torch.exp(gamma * torch.nn.functional.logsigmoid(-signed))
    return -(weight * torch.nn.functional.logsigmoid(signed)).sum(dim=1).mean()


def lovasz_hinge(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The Lovász extension of each image's Jaccard loss over its labels, on hinge errors; averaged over images.

    Method: Berman, Rannen Triki and Blaschko, The Lovász-Softmax Loss, 2018, section 3; the labels of an image stand
    where that paper has the pixels. An image without a label has the loss of its highest error.
    """
    errors = 1 - logits * (2 * targets - 1)
    ranked, order = errors.sort(dim=1, descending=True)
    truth = targets.gather(1, order)
    intersection = truth.sum(dim=1, keepdim=True) - truth.cumsum(dim=1)
    union = truth.sum(dim=1, keepdim=True) + (1 - truth).cumsum(dim=1)
    jaccard = 1 - intersection / union
    slopes = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], dim=1)
    return (ranked.relu() * slopes).sum(dim=1).mean()
