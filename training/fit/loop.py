"""The training loop: runs on the CPU, a GPU or several, by accelerate, and resumes from a saved state."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from timm.optim._optim_factory import create_optimizer_v2
from timm.utils.model_ema import ModelEmaV3
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR
from tqdm import tqdm

from inference.basics.errors import TrainingError
from training.data.mixing import BatchMixer
from training.data.samples import TrainingSamples, draw_from, load_training, order_epoch
from training.fit.distil import AttentionTransfer
from training.fit.losses import LossFunction
from training.fit.progress import TrainingProgress, read_progress, write_progress
from training.fit.weights import BestWeights
from training.recipe import Optimizer, Recipe, Schedule
from zoo.networks import Network

# Called after each epoch with the network that predicts and the figures of all epochs so far; returns the figure by
# which epochs are compared, higher is better.
AfterEpoch = Callable[[torch.nn.Module, list[dict[str, float]]], float]


@dataclass(frozen=True)
class Course:
    """Settings of a training that do not change its result."""

    state: Path
    """File of the saved state."""
    origin: Mapping[str, Any]
    """Settings that must equal those of the training that wrote the state."""
    resume: bool
    """Whether to continue from the state, if there is one."""
    workers: int
    """Processes that read images; 0: none."""
    save_seconds: float
    """Time between two saved states: about the most work that a killed run loses."""


@dataclass(frozen=True)
class Objective:
    """What is minimised on a batch."""

    take_loss: LossFunction
    mix: BatchMixer | None = None
    """Of images and their targets, before the forward pass."""
    transfer: AttentionTransfer | None = None
    """Its distance is added to the loss."""


@dataclass(frozen=True)
class Learner:
    """The network and its optimizer, wrapped by accelerate, and what changes with them."""

    accelerator: Accelerator
    module: torch.nn.Module
    optimizer: Any
    schedule: LRScheduler
    average: ModelEmaV3 | None
    """Moving average of the weights; it predicts if it is present."""
    best: BestWeights | None
    """Weights of the best epoch, if they are to be kept."""

    @property
    def bare(self) -> torch.nn.Module:
        """The network without the wrapper of accelerate."""
        module: torch.nn.Module = self.accelerator.unwrap_model(self.module)
        return module

    @property
    def predictor(self) -> torch.nn.Module:
        """The network that predicts."""
        return self.bare if self.average is None else self.average.module

    def parts(self) -> dict[str, Any]:
        """Return the parts of a saved state by name; each has state_dict and load_state_dict."""
        named = {
            "module": self.bare,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "average": self.average and self.average.module,
            "best": self.best,
            "scaler": self.accelerator.scaler,
        }
        return {name: part for name, part in named.items() if part is not None}


def train_network(
    network: Network,
    samples: TrainingSamples,
    rows: NDArray[np.int64],
    recipe: Recipe,
    course: Course,
    accelerator: Accelerator,
    objective: Objective,
    after_epoch: AfterEpoch,
) -> torch.nn.Module:
    """Train on the images at `rows` for the recipe's epochs, and return the network that predicts.

    `after_epoch` may add to the figures of the last epoch. The same seed and number of threads give the same weights on
    the same CPU, resumed or not. Raises TrainingError: the loss is not finite; OutputError: the state cannot be
    written, and the previous state stays.
    """
    # Fewer images than a batch are one batch. A last, smaller batch is dropped: it has other images in each epoch.
    batch_size = min(recipe.batch_size, len(rows) // accelerator.num_processes)
    if objective.mix is not None and batch_size > 1:
        batch_size -= batch_size % 2  # images are mixed in pairs
    at_once = batch_size * accelerator.num_processes
    steps = len(rows) // at_once
    learner = make_learner(network.module, recipe, -(-steps // recipe.accumulate), accelerator)
    progress = TrainingProgress()
    if course.resume and course.state.exists():
        progress, states = read_progress(course.state, course.origin)
        for name, part in learner.parts().items():
            part.load_state_dict(states[name])
    while progress.epoch < recipe.epochs:
        learner.module.train()
        samples.epoch = progress.epoch
        order = order_epoch(rows, recipe.seed, progress.epoch)[progress.step * at_once : steps * at_once]
        batches = iter(accelerator.prepare(load_training(samples, order, batch_size, course.workers)))
        saved = clock = time.monotonic()
        title = f"{recipe.name} epoch {progress.epoch + 1}/{recipe.epochs}"
        begun, quiet = progress.step, not accelerator.is_main_process
        for step in tqdm(range(begun, steps), title, steps, mininterval=1, initial=begun, disable=quiet):
            batch, targets = next(batches)
            waited = time.monotonic() - clock
            with draw_from(recipe.seed, progress.epoch, step, accelerator.process_index):
                loss = take_step(learner, batch, targets, objective)
            if not np.isfinite(loss):
                raise TrainingError(describe_divergence(loss, progress, steps, course.state))
            now = time.monotonic()
            progress.count_step(loss, now - clock, waited)
            clock = now
            if now - saved > course.save_seconds and accelerator.sync_gradients and progress.step < steps:
                save_progress(learner, progress, course)
                saved = clock = time.monotonic()
        progress.close_epoch()
        if accelerator.is_main_process:
            figure = after_epoch(learner.predictor, progress.history)
            if learner.best is not None:
                learner.best.compare(figure, progress.epoch, learner.predictor)
        save_progress(learner, progress, course)
    if learner.best is not None and learner.best.weights:
        learner.predictor.load_state_dict(learner.best.weights)
    return learner.predictor


def make_learner(module: torch.nn.Module, recipe: Recipe, updates: int, accelerator: Accelerator) -> Learner:
    """Create the parts of a training; `updates`: of the weights per epoch. Raises TrainingError: unknown optimizer."""
    module.to(accelerator.device).to(memory_format=torch.channels_last)  # an eighth faster
    optimizer = create_optimizer(module, recipe.optimizer)
    schedule = create_schedule(optimizer, recipe.optimizer, recipe.schedule, recipe.epochs * updates)
    # Starts at the network's weights; timm's warm-up makes it follow them fast at first and slowly later.
    average = ModelEmaV3(module, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    # Not the schedule: accelerate would step it once per process.
    wrapped, wrapped_optimizer = accelerator.prepare(module, optimizer)
    best = BestWeights() if recipe.keep == "best" else None
    return Learner(accelerator, wrapped, wrapped_optimizer, schedule, average, best)


def create_optimizer(module: torch.nn.Module, optimizer: Optimizer) -> torch.optim.Optimizer:
    """Create timm's optimizer, without weight decay of biases and norms; raises TrainingError: unknown name."""
    try:
        return create_optimizer_v2(
            module, optimizer.name, lr=optimizer.learning_rate, weight_decay=optimizer.weight_decay
        )
    except ValueError as error:
        raise TrainingError(
            f"`optimizer.name`: found {optimizer.name!r}; wanted one of timm.optim.list_optimizers(), such as adam"
        ) from error


def create_schedule(
    optimizer: torch.optim.Optimizer, settings: Optimizer, schedule: Schedule, updates: int
) -> LRScheduler:
    """Create the schedule of the learning rate over all `updates` of the weights."""
    rising = round(schedule.warmup * updates)
    if schedule.name == "one_cycle":
        # One step more than updates, so that the rate is 0 only after the last. torch divides by the length of the
        # rise, part * total_steps - 1, which must be above 0.
        part = max(schedule.warmup, 1.5 / (updates + 1))
        return OneCycleLR(optimizer, settings.learning_rate, total_steps=updates + 1, pct_start=part)
    rest: LRScheduler = (
        CosineAnnealingLR(optimizer, max(updates - rising, 1))
        if schedule.name == "cosine"
        else ConstantLR(optimizer, factor=1)
    )
    if not rising:
        return rest
    return SequentialLR(optimizer, [LinearLR(optimizer, start_factor=1 / rising, total_iters=rising), rest], [rising])


def take_step(
    learner: Learner,
    batch: torch.Tensor,
    targets: torch.Tensor,
    objective: Objective,
) -> float:
    """Run a batch forward and backward, update the weights after the last batch of an update; return the loss."""
    accelerator = learner.accelerator
    with accelerator.accumulate(learner.module):
        if objective.mix is not None:
            batch, targets = objective.mix(batch, targets)
        shown = batch.contiguous(memory_format=torch.channels_last)
        loss = objective.take_loss(learner.module(shown).float(), targets)
        if objective.transfer is not None:
            with accelerator.autocast():
                loss = loss + objective.transfer.measure(shown)
        value = float(loss.detach())
        if np.isfinite(value):
            accelerator.backward(loss)
            learner.optimizer.step()
            learner.optimizer.zero_grad()
            if accelerator.sync_gradients:
                learner.schedule.step()
                if learner.average is not None:
                    learner.average.update(learner.bare, step=learner.schedule.last_epoch)
    return value


def save_progress(learner: Learner, progress: TrainingProgress, course: Course) -> None:
    """Write the state from the main process, while the others wait."""
    if learner.accelerator.is_main_process:
        states = {name: part.state_dict() for name, part in learner.parts().items()}
        write_progress(progress, states, course.origin, course.state)
    learner.accelerator.wait_for_everyone()


def describe_divergence(loss: float, progress: TrainingProgress, steps: int, state: Path) -> str:
    """Return the error message for a loss that is not finite."""
    kept = f"the last good state is {state}" if state.exists() else "no state was written yet"
    return (
        f"epoch {progress.epoch + 1}, step {progress.step + 1} of {steps}: the loss is {loss}; {kept}; "
        "try a lower `optimizer.learning_rate`"
    )
