"""Losses: functions of a network's outputs and targets, (images, labels) each, that return one number."""

from collections.abc import Callable

import torch
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    log_softmax,
    logsigmoid,
    mse_loss,
)

from inference.manifest.task import TaskType
from training.recipe import LossName, LossSettings

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LOSSES: dict[TaskType, tuple[LossName, ...]] = {
    "multilabel": ("bce", "focal", "lovasz", "focal_lovasz"),
    "binary": ("bce", "focal"),
    "multiclass": ("cross_entropy", "focal"),
    "regression": ("mse", "huber"),
}
"""The losses that suit each type of task; the first is the default."""
HARD_ONLY = ("lovasz", "focal_lovasz")
"""Losses of sets of labels, which need targets of 0 and 1."""


def make_loss(loss: LossSettings, task: TaskType) -> LossFunction:
    """Return the loss function of a recipe; no name means the default of the task's type."""
    exclusive = task == "multiclass"
    focal = focal_softmax if exclusive else focal_loss
    functions: dict[LossName, LossFunction] = {
        "bce": lambda logits, targets: smooth_cross_entropy(logits, targets, loss.smoothing),
        "focal": lambda logits, targets: focal(logits, targets, loss.gamma),
        "lovasz": lovasz_hinge,
        "focal_lovasz": lambda logits, targets: (
            focal_loss(logits, targets, loss.gamma) + loss.lovasz * lovasz_hinge(logits, targets)
        ),
        "cross_entropy": lambda logits, targets: cross_entropy(logits, targets, label_smoothing=loss.smoothing),
        "mse": mse_loss,
        "huber": lambda outputs, targets: huber_loss(outputs, targets, delta=loss.delta),
    }
    return functions[loss.name or LOSSES[task][0]]


def smooth_cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return binary cross-entropy averaged over images and labels; `smoothing` moves targets towards 0.5.

    Source of the smoothing: Szegedy et al., Rethinking the Inception Architecture, 2016, for two classes.
    """
    return binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)


def focal_loss(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return (1 - p)^gamma times cross-entropy, p: probability of the truth; summed over labels, mean over images.

    A soft target t weights the two cases, label and no label, by t and 1 - t. Method: Lin et al., Focal Loss for Dense
    Object Detection, 2017, without their alpha. Summed over labels because the mean over a thousand labels, nearly all
    of them easy negatives, is too small compared with other losses.
    """
    own = logits.clone()  # gathers this loss's gradients, so that the sum with another's has the same rounding errors
    present, absent = logsigmoid(own), logsigmoid(-own)
    # Written as exp(gamma logsigmoid), the gradient of the weight is finite for p = 1.
    terms = targets * torch.exp(gamma * absent) * present + (1 - targets) * torch.exp(gamma * present) * absent
    return -terms.sum(dim=1).mean()


def focal_softmax(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the focal loss of exclusive labels, (1 - p)^gamma times cross-entropy; mean over images.

    `targets`: probabilities that add up to 1 per image.
    """
    logs = log_softmax(logits, dim=1)
    # The lower limit keeps the gradient finite for p = 1 and gamma below 1.
    weights = (-logs.expm1()).clamp(min=1e-12) ** gamma
    return -(targets * weights * logs).sum(dim=1).mean()


def lovasz_hinge(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the Lovász extension of each image's Jaccard loss over its labels, on hinge errors; mean over images.

    `targets`: 0 or 1. Method: Berman, Rannen Triki and Blaschko, The Lovász-Softmax Loss, 2018, section 3; an image's
    labels take the place of the paper's pixels. For an image without labels, the loss is its highest error.
    """
    errors = 1 - logits * (2 * targets - 1)
    ranked, order = errors.sort(dim=1, descending=True)
    truth = targets.gather(1, order)
    intersection = truth.sum(dim=1, keepdim=True) - truth.cumsum(dim=1)
    union = truth.sum(dim=1, keepdim=True) + (1 - truth).cumsum(dim=1)
    jaccard = 1 - intersection / union
    slopes = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], dim=1)
    return (ranked.relu() * slopes).sum(dim=1).mean()
