"""Writing and checking submission.csv."""

import csv
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from inference.basics.errors import OutputError, SubmissionError
from inference.basics.files import hold_temporary, make_folder, replace_file
from inference.basics.tables import read_columns
from inference.manifest.labels import Labels

HEADER = ("id", "attribute_ids")


def write_submission(path: Path, ids: Sequence[str], label_ids: Sequence[Sequence[int]]) -> None:
    """Write one row per image, its label ids separated by spaces, atomically. Raises OutputError."""
    with replace_file(_follow(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        rows.writerows((image_id, " ".join(map(str, row))) for image_id, row in zip(ids, label_ids, strict=True))


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


def check_submission(path: Path, ids: Sequence[str], labels: Labels) -> None:
    """Check that the rows are exactly `ids`, in order, each with at least one known label id, in ascending order.

    Raises SubmissionError naming the file and the first invalid row.
    """
    known = set(labels.ids)
    rows = list(read_columns(path, HEADER, SubmissionError))
    found = [image_id for image_id, _ in rows]
    if found != list(ids):
        missing, surplus = sorted(set(ids) - set(found)), sorted(set(found) - set(ids))
        reason = f"without {missing[0]}" if missing else f"with {surplus[0]}" if surplus else "repeated or out of order"
        rows_found = f"found {len(found)} rows, {reason}"
        raise SubmissionError(f"{path}: {rows_found}; wanted the {len(ids)} ids of the sample in order")
    for image_id, cell in rows:
        try:
            given = parse_label_ids(cell)
        except ValueError:
            raise SubmissionError(f"{path}: {image_id}: found {cell!r}; wanted label ids separated by spaces") from None
        if not given:
            raise SubmissionError(f"{path}: {image_id}: found no label; wanted at least one")
        unknown = [label for label in given if label not in known]
        if unknown:
            raise SubmissionError(f"{path}: {image_id}: found label id {unknown[0]}; wanted label ids of labels.csv")
        if given != sorted(set(given)):
            raise SubmissionError(f"{path}: {image_id}: found {cell!r}; wanted ascending label ids, each once")


def parse_label_ids(text: str) -> list[int]:
    """Parse the label ids in a cell of `attribute_ids`. Raises ValueError: one is not a whole number."""
    return [int(word) for word in text.split()]


def _follow(path: Path) -> Path:
    """Return the file that a link names, so that the submission replaces that file and not the link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path
