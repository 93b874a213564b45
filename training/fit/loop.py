"""The training loop: accelerate runs it on the CPU, a GPU or several; after a kill it goes on where it was."""

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
from training.data.samples import TrainingSamples, draw_from, load_training, order_epoch
from training.fit.distil import AttentionTransfer
from training.fit.losses import LossFunction, make_loss
from training.fit.progress import TrainingProgress, read_progress, write_progress
from training.recipe import Optimizer, Recipe, Schedule
from zoo.networks import Network

# What is to be done after an epoch with the network that predicts and the figures of each epoch so far.
AfterEpoch = Callable[[torch.nn.Module, list[dict[str, float]]], None]


@dataclass(frozen=True)
class Course:
    """How a training runs; nothing of it changes what is learnt.

    `state`: the file to go on from; `origin`: what must agree with the training that wrote it; `resume`: whether to;
    `workers`: processes that read images, 0 for none; `save_seconds`: about how much work a kill may cost.
    """

    state: Path
    origin: Mapping[str, Any]
    resume: bool
    workers: int
    save_seconds: float


@dataclass(frozen=True)
class Learner:
    """The parts that learn, as accelerate wraps them; `average`: of the weights over time, which then predicts."""

    accelerator: Accelerator
    module: torch.nn.Module
    optimizer: Any
    schedule: LRScheduler
    average: ModelEmaV3 | None

    @property
    def bare(self) -> torch.nn.Module:
        """The network that learns, without what accelerate put around it."""
        module: torch.nn.Module = self.accelerator.unwrap_model(self.module)
        return module

    @property
    def predictor(self) -> torch.nn.Module:
        """The network that predicts."""
        return self.bare if self.average is None else self.average.module

    def parts(self) -> dict[str, Any]:
        """What learning goes on from, by name: each has state_dict and load_state_dict."""
        named = {
            "module": self.bare,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "average": self.average and self.average.module,
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
    transfer: AttentionTransfer | None,
    after_epoch: AfterEpoch,
) -> torch.nn.Module:
    """Train on the images at `rows`, as many epochs as the recipe says, and return the network that predicts.

    `after_epoch` may add to the figures of the last epoch. The same seed gives the same weights on the same CPU with as
    many threads, resumed or not. Raises TrainingError where the loss is no longer a number, OutputError where the state
    cannot be written: the one that was last written stays.
    """
    # Fewer images than a batch are one batch; a last, smaller batch of many is left out, other images each epoch.
    batch_size = min(recipe.batch_size, len(rows) // accelerator.num_processes)
    at_once = batch_size * accelerator.num_processes
    steps = len(rows) // at_once
    learner = make_learner(network.module, recipe, -(-steps // recipe.accumulate), accelerator)
    progress = TrainingProgress()
    if course.resume and course.state.exists():
        progress, states = read_progress(course.state, course.origin)
        for name, part in learner.parts().items():
            part.load_state_dict(states[name])
    take_loss = make_loss(recipe.loss)
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
                loss = take_step(learner, batch, targets, take_loss, transfer)
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
            after_epoch(learner.predictor, progress.history)
        save_progress(learner, progress, course)
    return learner.predictor


def make_learner(module: torch.nn.Module, recipe: Recipe, updates: int, accelerator: Accelerator) -> Learner:
    """The parts of a training; `updates`: of the weights in an epoch. Raises TrainingError: an unknown optimizer."""
    module.to(accelerator.device).to(memory_format=torch.channels_last)  # an eighth faster
    optimizer = create_optimizer(module, recipe.optimizer)
    schedule = create_schedule(optimizer, recipe.optimizer, recipe.schedule, recipe.epochs * updates)
    # Its weights are those of the network at first; at once near it, later slow, as timm's warm-up has it.
    average = ModelEmaV3(module, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    # The schedule stays as it is: accelerate would count its steps by process.
    wrapped, wrapped_optimizer = accelerator.prepare(module, optimizer)
    return Learner(accelerator, wrapped, wrapped_optimizer, schedule, average)


def create_optimizer(module: torch.nn.Module, optimizer: Optimizer) -> torch.optim.Optimizer:
    """timm's optimizer of that name, biases and norms without weight decay; raises TrainingError for another name."""
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
    """The learning rate over all `updates` of the weights."""
    rising = round(schedule.warmup * updates)
    if schedule.name == "one_cycle":
        # One step more than there are: the rate is 0 only after the last. torch divides by the length of the rise,
        # which is a step short of its part.
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
    take_loss: LossFunction,
    transfer: AttentionTransfer | None,
) -> float:
    """One batch forward and back, and with the last batch of an update the weights; the loss."""
    accelerator = learner.accelerator
    with accelerator.accumulate(learner.module):
        shown = batch.contiguous(memory_format=torch.channels_last)
        loss = take_loss(learner.module(shown).float(), targets)
        if transfer is not None:
            with accelerator.autocast():
                loss = loss + transfer.measure(shown)
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
    """Write the state from the main process; the others wait for it."""
    if learner.accelerator.is_main_process:
        states = {name: part.state_dict() for name, part in learner.parts().items()}
        write_progress(progress, states, course.origin, course.state)
    learner.accelerator.wait_for_everyone()


def describe_divergence(loss: float, progress: TrainingProgress, steps: int, state: Path) -> str:
    """What to say of a loss that is no number."""
    kept = f"the last good state is {state}" if state.exists() else "no state was written yet"
    return (
        f"epoch {progress.epoch + 1}, step {progress.step + 1} of {steps}: the loss is {loss}; {kept}; "
        "try a lower `optimizer.learning_rate`"
    )
