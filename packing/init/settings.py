"""What the user states about a competition; the rest is read from its folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference.manifest.task import Layout, TaskType


@dataclass(frozen=True)
class Settings:
    """Arguments of `build_kernel.py init`; None: found in the folder."""

    folder: Path
    """Of the competition."""
    out: Path
    """Of the new zoo."""
    metric: str | None = None
    competition: str | None = None
    train: str | None = None
    """Table of the training images, relative to `folder`."""
    sample: str | None = None
    """Sample submission, relative to `folder`."""
    id_column: str | None = None
    """Of the sample submission."""
    train_id_column: str | None = None
    label_columns: tuple[str, ...] = ()
    type: TaskType | None = None
    layout: Layout | None = None
    images: str | None = None
    """Pattern of the test images' places."""
    train_images: str | None = None
    """Pattern of the training images' places."""
    separator: str | None = None
    """Of the labels in a cell; 'none': a cell is one label."""
    top_k: int | None = None
    positive: str | None = None
    """The class whose probability is asked, of two classes."""
    group_by: str | None = None
    """Column of the train table whose equal cells stay in one fold."""
    folds: int = 5
    seed: int = 0
    time_limit: float | None = None
    """Seconds."""
    force: bool = False

    def read_separator(self, find: Callable[[], str | None]) -> str | None:
        """Return the separator that the user gave, or else that of `find`; None: a cell is one label."""
        if self.separator is None:
            return find()
        return None if self.separator == "none" else self.separator.replace("\\t", "\t")
