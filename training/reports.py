"""What a training leaves to look at: a table of its epochs and a run for TensorBoard."""

from pathlib import Path

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from inference.files import replace_file


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
