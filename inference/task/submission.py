"""Writing, reading and checking submission.csv."""

import csv
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from inference.basics.errors import OutputError, SubmissionError
from inference.basics.files import hold_temporary, make_folder, replace_file
from inference.basics.tables import read_columns, read_header
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.answers import Answer
from inference.task.cells import CellReader, write_value
from inference.task.sample import Sample, list_columns


def write_submission(path: Path, sample: Sample, answers: Sequence[Answer], labels: Labels, task: Task) -> None:
    """Write the answer to each image of the sample, with its columns and rows, atomically. Raises OutputError."""
    with replace_file(_follow(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(sample.header)
        table.writerows(list_rows(sample, answers, labels, task))


def list_rows(sample: Sample, answers: Sequence[Answer], labels: Labels, task: Task) -> Iterator[list[str]]:
    """Yield the rows of a submission below its header."""
    columns = list_columns(task, labels)
    order = [columns.index(column) for column in sample.header]
    for row in _list_unordered(sample, answers, labels, task):
        yield [row[place] for place in order]


def _list_unordered(sample: Sample, answers: Sequence[Answer], labels: Labels, task: Task) -> Iterator[tuple[str, ...]]:
    form = task.submission
    if form.layout == "long":
        for cell in sample.cells:
            yield cell.row, write_value(answers[cell.image][cell.column])
        return
    written = labels.names if form.content == "label_name" else tuple(map(str, labels.ids))
    names = dict(zip(labels.ids, written, strict=True))
    for image, answer in zip(sample.ids, answers, strict=True):
        if form.layout == "wide":
            yield image, *map(write_value, answer)
        else:
            yield image, form.separator.join(names[int(label)] for label in answer)


def check_writable(path: Path) -> None:
    """Raise OutputError if no file can be written at `path`, so that a long run fails at its start.

    Creates the folder if it is missing; an existing file is not changed. A device or pipe is refused, as the submission
    would replace it by a file, for all processes of the machine.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = stat.S_IFREG
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: is a folder; name the file to write, as in {path / 'submission.csv'}")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path}: is a device or pipe; name the file to write, as in submission.csv")
    make_folder(_follow(path).parent)
    with hold_temporary(_follow(path)):
        pass


def check_submission(path: Path, sample: Sample, labels: Labels, task: Task) -> None:
    """Check that the columns and rows are those of the sample, in its order, and that each answer is valid.

    Raises SubmissionError naming the file and the first invalid row.
    """
    for _ in read_submission(path, sample, labels, task):
        pass


def read_submission(path: Path, sample: Sample, labels: Labels, task: Task) -> Iterator[tuple[str, Answer]]:
    """Yield (row, answer) of each row, checked; the answer of a row of the layout `long` is its one value.

    Raises SubmissionError as `check_submission`.
    """
    header = tuple(read_header(path, SubmissionError))
    if header != sample.header:
        raise SubmissionError(
            f"{path}: found the columns {', '.join(header)}; wanted those of the sample: {', '.join(sample.header)}"
        )
    form, wanted = task.submission, sample.rows
    columns = labels.names if form.layout == "wide" else (form.column,)
    rows = list(read_columns(path, (task.id_column, *columns), SubmissionError))
    found = [row for row, *_ in rows]
    if found != list(wanted):
        missing, surplus = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        reason = f"without {missing[0]}" if missing else f"with {surplus[0]}" if surplus else "repeated or out of order"
        rows_found = f"found {len(found)} rows, {reason}"
        raise SubmissionError(f"{path}: {rows_found}; wanted the {len(wanted)} ids of the sample in order")
    reader = CellReader(labels, task)
    for row, *cells in rows:
        try:
            yield row, reader.read(cells)
        except ValueError as error:
            raise SubmissionError(f"{path}: {row}: {error}") from None


def _follow(path: Path) -> Path:
    """Return the file that a link names, so that the submission replaces that file and not the link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path
