"""sample_submission.csv: the images to predict, in their order, and the columns and rows of the submission."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import SubmissionError
from inference.basics.tables import read_header
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.ids import read_ids


@dataclass(frozen=True)
class Cell:
    """A row of a submission with a row per image and label."""

    row: str
    """Its id, as in the sample."""
    image: int
    """Index in `Sample.ids`."""
    column: int
    """Column of the label."""


@dataclass(frozen=True)
class Sample:
    """The images and the form of a submission."""

    header: tuple[str, ...]
    """Columns in the order of the file."""
    ids: tuple[str, ...]
    """Image ids in the order of the file."""
    cells: tuple[Cell, ...] = ()
    """Rows of the layout `long`, in the order of the file."""

    @property
    def rows(self) -> tuple[str, ...]:
        """The ids of the rows of the submission."""
        return tuple(cell.row for cell in self.cells) if self.cells else self.ids


def read_sample(path: Path, task: Task, labels: Labels) -> Sample:
    """Read a sample submission; its cells beside the ids do not count.

    Raises SubmissionError: its columns are not those of the task; no rows; an id that is empty or occurs twice; a row
    that does not name an image and a label.
    """
    header = tuple(read_header(path, SubmissionError))
    wanted = list_columns(task, labels)
    if sorted(header) != sorted(wanted):
        raise SubmissionError(
            f"{path}: found the columns {list_some(header)}; wanted {list_some(wanted)}, as `task` of the manifest "
            "says; give the competition's own sample, or correct the task with `build_kernel.py set` or `init`"
        )
    rows = read_ids(path, task.id_column)
    if task.submission.layout != "long":
        return Sample(header, tuple(rows))
    return Sample(header, *split_rows(path, rows, task, labels))


def list_columns(task: Task, labels: Labels) -> tuple[str, ...]:
    """Return the columns of a submission, the ids first."""
    answers = labels.names if task.submission.layout == "wide" else (task.submission.column,)
    return (task.id_column, *answers)


def split_rows(path: Path, rows: list[str], task: Task, labels: Labels) -> tuple[tuple[str, ...], tuple[Cell, ...]]:
    """Split the ids of rows such as ID_LABEL by `task.submission.row`; return the image ids and the cells.

    Raises SubmissionError: a row that does not fit the pattern.
    """
    names = {name: column for column, name in enumerate(labels.names)}
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.escape(task.submission.row)
    for placeholder, part in (("id", "(?P<id>.+?)"), ("label", f"(?P<label>{longest_first})")):
        pattern = pattern.replace(re.escape(f"{{{placeholder}}}"), part)
    shape = re.compile(pattern, re.DOTALL)
    places: dict[str, int] = {}
    cells = []
    for row in rows:
        found = shape.fullmatch(row)
        if not found:
            raise SubmissionError(
                f"{path}: found the row {row!r}; wanted {task.submission.row}, with a label of labels.csv"
            )
        image = places.setdefault(found["id"], len(places))
        cells.append(Cell(row, image, names[found["label"]]))
    return tuple(places), tuple(cells)


def list_some(names: Sequence[str], most: int = 8) -> str:
    """Join the first `most` names, and say how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
