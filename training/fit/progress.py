"""Progress of a training: its saved state, and the figures of its epochs."""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter

from inference.basics.errors import TrainingError
from inference.basics.files import replace_file
from zoo.text import flatten_message


@dataclasses.dataclass
class TrainingProgress:
    """Progress of a training within its current epoch, and the figures of the finished ones."""

    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished batches of the current epoch."""
    loss: float = 0.0
    """Sum over these batches."""
    seconds: float = 0.0
    waited: float = 0.0
    """Part of `seconds` spent waiting for images."""
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """Figures of each finished epoch."""

    def count_step(self, loss: float, seconds: float, waited: float) -> None:
        """Count a batch: its loss, its seconds, and the part of them spent waiting for images."""
        self.step += 1
        self.loss += loss
        self.seconds += seconds
        self.waited += waited

    def close_epoch(self) -> None:
        """Add the figures of the current epoch to the history, and start the next."""
        waiting = self.waited / self.seconds
        self.history.append({"loss": self.loss / self.step, "seconds": self.seconds, "waiting": waiting})
        self.epoch, self.step, self.loss, self.seconds, self.waited = self.epoch + 1, 0, 0.0, 0.0, 0.0


def write_progress(progress: TrainingProgress, state: Mapping[str, Any], origin: Mapping[str, Any], path: Path) -> None:
    """Write the progress and the learner's `state`, atomically; `origin`: what must be the same when it is resumed.

    Raises OutputError: the file cannot be written, and the previous file stays.
    """
    buffer = io.BytesIO()  # torch's own writer gives no reason when the disk is full
    torch.save({"origin": dict(origin), "progress": dataclasses.asdict(progress), "state": dict(state)}, buffer)
    with replace_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_progress(path: Path, origin: Mapping[str, Any]) -> tuple[TrainingProgress, dict[str, Any]]:
    """Read what write_progress wrote.

    Raises TrainingError: not such a file, or its recipe, fold or images differ from `origin`.
    """
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        progress = TrainingProgress(**kept["progress"])
        state, found = kept["state"], kept["origin"]
    except Exception as error:  # torch raises many types for other files
        reason = flatten_message(error)[:200]
        raise TrainingError(f"{path}: not a saved state: {reason}; remove it to start over") from error
    for key in sorted({*found, *origin}):
        if found.get(key) != origin.get(key):
            raise TrainingError(
                f"{path}: saved by another training: `{key}`: found {found.get(key)!r}; wanted {origin.get(key)!r}; "
                "resume with the settings that it was started with, or remove it to start over"
            )
    return progress, state


class Report:
    """A writer of a network's figures by epoch: NAME.metrics.csv and tensorboard/NAME in a folder."""

    def __init__(self, folder: Path, name: str):
        self.path, self.run = folder / f"{name}.metrics.csv", folder / "tensorboard" / name

    def write_epochs(self, history: list[dict[str, float]]) -> None:
        """Write the table of all epochs, atomically, and add the last epoch to the TensorBoard run."""
        with replace_file(self.path) as temporary:
            table = pd.DataFrame(history, index=pd.RangeIndex(1, len(history) + 1, name="epoch"))
            table.to_csv(temporary, float_format="%.6g", lineterminator="\n")
        with SummaryWriter(str(self.run), purge_step=len(history)) as writer:
            for name, value in history[-1].items():
                writer.add_scalar(name, value, len(history))
