"""The CNN stacker: convolutions over the members and a dense layer over the labels correct the members' mean logit.

Method: the 7th place of iMet 2019 stacks its models with a network whose input is (models, labels). Convolutions with
kernel (3, 1) learn the correlation between models, a dense layer that between labels. Here both correct the mean of
the members' logits; the correction is 0 at the start of the training. For one label per image, the logits are the
logarithms of the probabilities, and a softmax ends the network.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from tqdm import tqdm

from inference.basics.errors import TrainingError
from inference.ensemble.blend import Scores, fill_members
from training.data.samples import draw_from
from zoo.metrics.selection import Truth

CLIP = 1e-4  # keeps logits finite: float16 scores contain exact zeros
SMALLEST = 1e-6  # the same of probabilities that add up to 1, as those of many labels are small
# Added to the standard deviation of a label before the division: that of rare labels is almost 0.
FLOOR = 0.02
CHUNK = 512


@dataclass(frozen=True)
class CnnSettings:
    """Architecture and training of a CNN stacker."""

    channels: int = 8
    """Of the hidden convolutions."""
    features: int = 4
    """Output channels of the convolutions, per label."""
    rank: int = 256
    """Width of the dense part; `dropout` acts on this layer, `input_dropout` on its input."""
    dropout: float = 0.3
    input_dropout: float = 0.1
    member_dropout: float = 0.1
    """Probability that a member is dropped from a training image."""
    epochs: int = 4
    """At least this many, and more for small data, to reach `updates` steps."""
    updates: int = 200
    batch_size: int = 128
    learning_rate: float = 3e-3
    """Maximum of the one-cycle schedule."""
    exclusive: bool = False
    """One label per image: softmax and cross-entropy instead of sigmoid and binary cross-entropy."""


class CnnStacker(torch.nn.Module):
    """Network from the members' probabilities, (images, members, labels), to one probability per label.

    The inputs of the convolutions are the probabilities and their square roots, normalised with `center` and `scale`,
    (2, labels). The low-rank dense part gets the convolution features of all labels. The correction of a label's mean
    logit is the sum of the dense output and of its own weighted features, if `learnable`, (labels,), is true.
    """

    def __init__(
        self, members: int, center: torch.Tensor, scale: torch.Tensor, learnable: torch.Tensor, settings: CnnSettings
    ) -> None:
        super().__init__()
        self.members, self.labels, self.exclusive = members, len(learnable), settings.exclusive
        self.center: torch.Tensor
        self.scale: torch.Tensor
        self.learnable: torch.Tensor
        self.register_buffer("center", center[:, None].clone())  # (2, 1, labels)
        self.register_buffer("scale", scale[:, None].clone())
        self.register_buffer("learnable", learnable.float())
        self.convolutions = torch.nn.Sequential(
            torch.nn.Conv2d(2, settings.channels, (3, 1), padding=(1, 0)),
            torch.nn.ReLU(),
            torch.nn.Conv2d(settings.channels, settings.channels, (3, 1), padding=(1, 0)),
            torch.nn.ReLU(),
            torch.nn.Conv2d(settings.channels, settings.features, (members, 1)),
        )
        width = settings.features + 2
        self.own = torch.nn.Parameter(torch.zeros(width, self.labels))
        self.reduce = torch.nn.Linear(width * self.labels, settings.rank)
        self.expand = torch.nn.Linear(2 * settings.rank, self.labels)
        torch.nn.init.zeros_(self.expand.weight)
        torch.nn.init.zeros_(self.expand.bias)
        self.input_dropout = torch.nn.Dropout(settings.input_dropout)
        self.dropout = torch.nn.Dropout(settings.dropout)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Return probabilities (images, labels) from those of the members, (images, members, labels)."""
        logits = self.find_logits(scores)
        return logits.softmax(1) if self.exclusive else logits.sigmoid()

    def find_logits(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the logits of `forward`."""
        if self.exclusive:
            mean = scores.clamp(min=SMALLEST).log().mean(1)
        else:
            clipped = scores.clamp(CLIP, 1 - CLIP)
            mean = (clipped.log() - (1 - clipped).log()).mean(1)
        seen = (torch.stack([scores, scores.sqrt()], 1) - self.center) * self.scale  # (images, 2, members, labels)
        features = torch.cat([seen.mean(2), self.convolutions(seen)[:, :, 0]], 1)  # (images, features + 2, labels)
        hidden = self.reduce(self.input_dropout(features).flatten(1))
        # Linear and rectified: most relations between labels are linear.
        dense = self.expand(self.dropout(torch.cat([hidden, hidden.relu()], 1)))
        logits: torch.Tensor = mean + self.learnable * ((features * self.own).sum(1) + dense)
        return logits


def fit_cnn(
    scores: Scores,
    truth: Truth,
    settings: CnnSettings,
    seed: int,
    device: torch.device | None = None,
    title: str = "cnn stacker",
) -> CnnStacker:
    """Train a stacker with (binary) cross-entropy, on the CPU by default; return it on the CPU.

    `scores`: probabilities, (images, members, labels), for labels that a member does not cover NaN or the value of
    `fill_members`; prefer NaN, because a filled score still depends on a dropped member. `truth`: (images, labels),
    bool, or shares from 0 to 1.
    Training drops members at random and fills in their scores as `fill_members` does in the kernel. A label without a
    positive image gets no correction. The same seed gives the same weights on the same CPU and number of threads.

    Raises TrainingError: shapes do not match; a score is not a probability; the loss is not finite.
    """
    check_shapes(scores, truth)
    device = device or torch.device("cpu")
    center, scale = measure_spread(scores)
    with draw_from(seed):
        stacker = CnnStacker(scores.shape[1], center, scale, torch.from_numpy(truth.any(axis=0)), settings)
        # With so few channels, this layout takes half the time of the default one.
        stacker.to(memory_format=torch.channels_last).to(device)
        train(stacker, scores, truth, settings, seed, device, title)
    stacker.cpu().to(memory_format=torch.contiguous_format)
    return stacker.eval()


def train(
    stacker: CnnStacker,
    scores: Scores,
    truth: Truth,
    settings: CnnSettings,
    seed: int,
    device: torch.device,
    title: str,
) -> None:
    """Train in place with AdamW and a one-cycle schedule; arguments and errors as `fit_cnn`."""
    batch_size = min(settings.batch_size, len(scores))
    steps = len(scores) // batch_size  # the last, smaller batch is skipped; the images in it change each epoch
    epochs = max(settings.epochs, math.ceil(settings.updates / steps))
    optimizer = torch.optim.AdamW(stacker.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * epochs, pct_start=0.2
    )
    stacker.train()
    with tqdm(total=steps * epochs, desc=title, unit="batch", mininterval=1, leave=False) as bar:
        for epoch in range(epochs):
            dice = np.random.default_rng([seed, epoch])
            order = dice.permutation(len(scores))
            for step in range(steps):
                rows = np.sort(order[step * batch_size : (step + 1) * batch_size])
                dropped = torch.from_numpy(dice.random((batch_size, scores.shape[1])) < settings.member_dropout)
                batch = torch.from_numpy(scores[rows]).to(device).float()
                targets = torch.from_numpy(truth[rows]).to(device).float()
                logits = stacker.find_logits(drop_members(batch, dropped.to(device)))
                loss = measure_loss(logits, targets, settings)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                bar.update()
            last = float(loss.detach())
            if not np.isfinite(last):
                raise TrainingError(
                    f"{title}: found a loss of {last} after epoch {epoch + 1} of {epochs}; wanted a finite loss; "
                    "lower the learning rate"
                )
            bar.set_postfix(loss=f"{last:.2f}", refresh=False)


def measure_loss(logits: torch.Tensor, targets: torch.Tensor, settings: CnnSettings) -> torch.Tensor:
    """Return the loss per image of a batch; both arguments: (images, labels), targets from 0 to 1."""
    if settings.exclusive:
        return cross_entropy(logits, targets)
    # Sum over labels: the mean over a thousand mostly easy labels has almost no gradient.
    return binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


def drop_members(scores: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
    """Fill in NaN and `dropped` members, (images, members), in scores (images, members, labels).

    As `fill_members`: with the mean of the remaining members, or 0. If none would remain for a label, its members stay:
    the kernel never drops all members of a group.
    """
    known = ~scores.isnan()
    left = known & ~dropped[:, :, None]
    left = torch.where(left.any(1, keepdim=True), left, known)
    kept = torch.where(left, scores, 0)
    means = kept.sum(1, keepdim=True) / left.sum(1, keepdim=True).clamp(min=1)
    return torch.where(left, kept, means)


def measure_spread(scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `center` and `scale` of the probabilities and of their square roots, (2, labels) each.

    Over images and members, with NaN filled in. Raises TrainingError: a score is not a probability.
    """
    sums = np.zeros((2, 2, scores.shape[2]))  # (sum or sum of squares, score or its root, labels)
    for start in range(0, len(scores), CHUNK):
        chunk = fill_members(scores[start : start + CHUNK].astype(np.float32)).astype(np.float64)
        if not (chunk.min() >= 0 and chunk.max() <= 1):
            raise TrainingError(
                f"scores of images {start} to {start + len(chunk) - 1}: found {chunk.min():g} to {chunk.max():g}; "
                "wanted probabilities; write the out-of-fold scores again"
            )
        for place, values in enumerate((chunk, np.sqrt(chunk))):
            sums[:, place] += values.sum(axis=(0, 1)), (values**2).sum(axis=(0, 1))
    mean, square = sums / (len(scores) * scores.shape[1])
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(1 / (deviation + FLOOR)).float()


def predict_cnn(stacker: CnnStacker, scores: Scores) -> NDArray[np.float32]:
    """Return probabilities (images, labels) from scores (images, members, labels); NaN is filled in as in the kernel.

    Raises TrainingError: the number of members or labels differs from the fit.
    """
    if scores.ndim != 3 or scores.shape[1:] != (stacker.members, stacker.labels):
        raise TrainingError(
            f"scores: found shape {scores.shape}; wanted (images, {stacker.members} members, {stacker.labels} labels), "
            "as in the fit"
        )
    predicted = np.empty((len(scores), stacker.labels), np.float32)
    stacker.eval()
    with torch.inference_mode():
        for start in range(0, len(scores), CHUNK):
            chunk = fill_members(scores[start : start + CHUNK].astype(np.float32))
            predicted[start : start + CHUNK] = stacker(torch.from_numpy(chunk)).numpy()
    return predicted


def check_shapes(scores: Scores, truth: Truth) -> None:
    """Raise TrainingError unless scores are (images, members, labels), none of them 0, and truth matches."""
    if scores.ndim != 3 or 0 in scores.shape:
        raise TrainingError(
            f"scores: found shape {scores.shape}; wanted (images, members, labels), at least one of each"
        )
    images, _, labels = scores.shape
    if truth.shape != (images, labels):
        raise TrainingError(
            f"truth: found shape {truth.shape}; wanted ({images}, {labels}), the images and labels of the scores"
        )
