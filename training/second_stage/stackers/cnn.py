"""The CNN stacker: convolutions over the members, a dense layer over the labels, around the mean of the members.

Method: the 7th place of iMet 2019 stacks its models by a network whose input is (models, labels): convolutions with
kernel (3, 1) learn how the models correlate, a dense layer how the labels do. Here both correct the mean of the
members' logits, and start by correcting nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from inference.basics.errors import TrainingError
from inference.ensemble.blend import Scores, fill_members
from training.data.samples import draw_from

CLIP = 1e-4  # of a probability before its logit is taken; float16 scores hold exact zeros
# Added to a label's deviation before it divides: that of the rarest labels is next to nothing.
FLOOR = 0.02
CHUNK = 512


@dataclass(frozen=True)
class CnnSettings:
    """How a CNN stacker is built and trained.

    `channels`: of the convolutions; `features`: that they leave of a label's members; `rank`: width of the dense part;
    `dropout`: of its hidden layer, `input_dropout`: of what it sees; `member_dropout`: chance of each member to be left
    out of an image; `epochs`: more where they are fewer than `updates`; `learning_rate`: the highest of a one-cycle
    schedule.
    """

    channels: int = 8
    features: int = 4
    rank: int = 256
    dropout: float = 0.3
    input_dropout: float = 0.1
    member_dropout: float = 0.1
    epochs: int = 4
    updates: int = 200
    batch_size: int = 128
    learning_rate: float = 3e-3


class CnnStacker(torch.nn.Module):
    """Probabilities of members (images, members, labels) to one probability of each label, (images, labels).

    A label's probabilities and their square roots, each centred and scaled by `center` and `scale`, (2, labels), go
    through the convolutions; the dense part, of low rank, sees what they leave of all labels. What a label's own
    features and the dense part say is added to the mean of its logits where `learnable`, (labels,), is true.
    """

    def __init__(
        self, members: int, center: torch.Tensor, scale: torch.Tensor, learnable: torch.Tensor, settings: CnnSettings
    ) -> None:
        super().__init__()
        self.members, self.labels = members, len(learnable)
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
        """Probabilities (images, labels) of the members' (images, members, labels)."""
        return torch.sigmoid(self.find_logits(scores))

    def find_logits(self, scores: torch.Tensor) -> torch.Tensor:
        """The logits of `forward`."""
        clipped = scores.clamp(CLIP, 1 - CLIP)
        mean = (clipped.log() - (1 - clipped).log()).mean(1)
        seen = (torch.stack([scores, scores.sqrt()], 1) - self.center) * self.scale  # (images, 2, members, labels)
        features = torch.cat([seen.mean(2), self.convolutions(seen)[:, :, 0]], 1)  # (images, features + 2, labels)
        hidden = self.reduce(self.input_dropout(features).flatten(1))
        # As it is and rectified: most of what labels say of one another is linear.
        dense = self.expand(self.dropout(torch.cat([hidden, hidden.relu()], 1)))
        logits: torch.Tensor = mean + self.learnable * ((features * self.own).sum(1) + dense)
        return logits


def fit_cnn(
    scores: Scores,
    truth: NDArray[np.bool_],
    settings: CnnSettings,
    seed: int,
    device: torch.device | None = None,
    title: str = "cnn stacker",
) -> CnnStacker:
    """Train a stacker by binary cross-entropy, on the CPU unless a device is given; it comes back on the CPU.

    `scores`: (images, members, labels), probabilities; NaN, or what `fill_members` puts there, for labels that a member
    does not cover. `truth`: (images, labels). In training members are left out at random, and filled from the others
    as `fill_members` does in the kernel: with NaN exactly so; where the NaN were filled before, what stands there still
    carries a trace of the member that is left out. A label without a positive keeps the mean's score: its correction
    is held at zero. The same seed gives the same weights on the same CPU with as many threads.

    Raises TrainingError where shapes disagree, a score is no probability, or the loss is no longer a number.
    """
    check_shapes(scores, truth)
    device = device or torch.device("cpu")
    center, scale = measure_spread(scores)
    with draw_from(seed):
        stacker = CnnStacker(scores.shape[1], center, scale, torch.from_numpy(truth.any(axis=0)), settings)
        # Half the time of the default layout for so few channels.
        stacker.to(memory_format=torch.channels_last).to(device)
        train(stacker, scores, truth, settings, seed, device, title)
    stacker.cpu().to(memory_format=torch.contiguous_format)
    return stacker.eval()


def train(
    stacker: CnnStacker,
    scores: Scores,
    truth: NDArray[np.bool_],
    settings: CnnSettings,
    seed: int,
    device: torch.device,
    title: str,
) -> None:
    """Train in place, AdamW on a one-cycle schedule; arguments and errors as `fit_cnn`."""
    batch_size = min(settings.batch_size, len(scores))
    steps = len(scores) // batch_size  # a last, smaller batch is left out, other images each epoch
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
                # Summed over labels: a mean over a thousand of them, nearly all easy, has next to no gradient.
                loss = binary_cross_entropy_with_logits(logits, targets, reduction="sum") / batch_size
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                bar.update()
            last = float(loss.detach())
            if not np.isfinite(last):
                raise TrainingError(
                    f"{title}: the loss is {last} after epoch {epoch + 1} of {epochs}; lower the learning rate"
                )
            bar.set_postfix(loss=f"{last:.2f}", refresh=False)


def drop_members(scores: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
    """Scores (images, members, labels) with NaN and members that are `dropped`, (images, members), filled.

    Filled as `fill_members` does: by the mean of the members that remain, or 0. Where none would
    remain for a label, those that have it stay: the kernel leaves no group without a member.
    """
    there = ~scores.isnan()
    left = there & ~dropped[:, :, None]
    left = torch.where(left.any(1, keepdim=True), left, there)
    known = torch.where(left, scores, 0)
    means = known.sum(1, keepdim=True) / left.sum(1, keepdim=True).clamp(min=1)
    return torch.where(left, known, means)


def measure_spread(scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    """What centres and scales a label's probabilities and their square roots, (2, labels) each.

    Over images and members, filled. Raises TrainingError where a score is not NaN and no probability.
    """
    sums = np.zeros((2, 2, scores.shape[2]))  # (of values and of their squares, of scores and of their roots, labels)
    for start in range(0, len(scores), CHUNK):
        chunk = fill_members(scores[start : start + CHUNK].astype(np.float32)).astype(np.float64)
        if not (chunk.min() >= 0 and chunk.max() <= 1):
            raise TrainingError(
                f"scores of images {start} to {start + len(chunk) - 1}: between {chunk.min():g} and {chunk.max():g}, "
                "wanted probabilities; write the out-of-fold scores again"
            )
        for place, values in enumerate((chunk, np.sqrt(chunk))):
            sums[:, place] += values.sum(axis=(0, 1)), (values**2).sum(axis=(0, 1))
    mean, square = sums / (len(scores) * scores.shape[1])
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(1 / (deviation + FLOOR)).float()


def predict_cnn(stacker: CnnStacker, scores: Scores) -> NDArray[np.float32]:
    """Probabilities (images, labels) of scores (images, members, labels); NaN is filled as in the kernel.

    Raises TrainingError where there are other members or labels than the stacker was fitted to.
    """
    if scores.ndim != 3 or scores.shape[1:] != (stacker.members, stacker.labels):
        raise TrainingError(
            f"scores of shape {scores.shape}: the stacker was fitted to (images, {stacker.members} members, "
            f"{stacker.labels} labels)"
        )
    predicted = np.empty((len(scores), stacker.labels), np.float32)
    stacker.eval()
    with torch.inference_mode():
        for start in range(0, len(scores), CHUNK):
            chunk = fill_members(scores[start : start + CHUNK].astype(np.float32))
            predicted[start : start + CHUNK] = stacker(torch.from_numpy(chunk)).numpy()
    return predicted


def check_shapes(scores: Scores, truth: NDArray[np.bool_]) -> None:
    """Raises TrainingError unless scores are (images, members, labels), at least one each, and truth fits them."""
    if scores.ndim != 3 or 0 in scores.shape:
        raise TrainingError(
            f"scores of shape {scores.shape}: wanted (images, members, labels), at least one of each; see fill_members"
        )
    images, _, labels = scores.shape
    if truth.shape != (images, labels):
        raise TrainingError(
            f"truth of shape {truth.shape}: wanted ({images}, {labels}), the images and labels of the scores"
        )
