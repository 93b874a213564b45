"""How far a training is, and the file that it goes on from after a kill."""

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


@dataclasses.dataclass
class TrainingProgress:
    """Where a training stands: `epoch` whole ones and `step` batches of the next.

    `loss`: summed over the steps; `seconds`, `waited`: of the steps, and of them waiting for images; `history`: the
    figures of each whole epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def count_step(self, loss: float, seconds: float, waited: float) -> None:
        """One more batch: its loss, its seconds with all waiting, the seconds of waiting for images."""
        self.step += 1
        self.loss += loss
        self.seconds += seconds
        self.waited += waited

    def close_epoch(self) -> None:
        """Put the figures of the epoch that ends into the history, and begin the next."""
        waiting = self.waited / self.seconds
        self.history.append({"loss": self.loss / self.step, "seconds": self.seconds, "waiting": waiting})
        self.epoch, self.step, self.loss, self.seconds, self.waited = self.epoch + 1, 0, 0.0, 0.0, 0.0


def write_progress(progress: TrainingProgress, state: Mapping[str, Any], origin: Mapping[str, Any], path: Path) -> None:
    """Write where a training stands and its learner's `state`, whole or not at all; `origin`: what must agree later.

    Raises OutputError where the system refuses to write; the file that was there then stays.
    """
    buffer = io.BytesIO()  # torch's own writer answers a full disk with an error that does not say so
    torch.save({"origin": dict(origin), "progress": dataclasses.asdict(progress), "state": dict(state)}, buffer)
    with replace_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_progress(path: Path, origin: Mapping[str, Any]) -> tuple[TrainingProgress, dict[str, Any]]:
    """What write_progress wrote.

    Raises TrainingError naming the file, and what differs where it is of another recipe, fold or table.
    """
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        progress = TrainingProgress(**kept["progress"])
        state, found = kept["state"], kept["origin"]
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{path}: no state of a training: {reason}; remove it to start over") from error
    for key in sorted({*found, *origin}):
        if found.get(key) != origin.get(key):
            raise TrainingError(
                f"{path}: of another training: `{key}` was {found.get(key)!r}, is {origin.get(key)!r}; "
                "go on with the recipe that it was started with, or remove it to start over"
            )
    return progress, state


class Report:
    """The figures of a network's epochs: NAME.metrics.csv and tensorboard/NAME in a folder."""

    def __init__(self, folder: Path, name: str):
        self.path, self.run = folder / f"{name}.metrics.csv", folder / "tensorboard" / name

    def write_epochs(self, history: list[dict[str, float]]) -> None:
        """Write the table of all epochs anew, whole or not at all, and add the last one to the run."""
        with replace_file(self.path) as temporary:
            table = pd.DataFrame(history, index=pd.RangeIndex(1, len(history) + 1, name="epoch"))
            table.to_csv(temporary, float_format="%.6g", lineterminator="\n")
        with SummaryWriter(str(self.run), purge_step=len(history)) as writer:
            for name, value in history[-1].items():
                writer.add_scalar(name, value, len(history))
