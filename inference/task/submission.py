"""sample_submission.csv says which images; submission.csv answers it."""

import csv
from collections.abc import Sequence
from pathlib import Path

from inference.basics.errors import OutputError, SubmissionError
from inference.basics.files import make_folder, replace_file
from inference.basics.tables import read_columns
from inference.manifest.labels import Labels

HEADER = ("id", "attribute_ids")


def write_submission(path: Path, ids: Sequence[str], label_ids: Sequence[Sequence[int]]) -> None:
    """One row an image with its label ids separated by spaces; written whole or not at all, or OutputError."""
    with replace_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        rows.writerows((image_id, " ".join(map(str, given))) for image_id, given in zip(ids, label_ids, strict=True))


def check_writable(path: Path) -> None:
    """Raises OutputError naming `path` where a file could not be written there; better before hours of work than after.

    The folder is made where it is missing; an existing file stays as it is.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name the file to write, as in {path / 'submission.csv'}")
    make_folder(path.parent)
    probe = path.with_name(f".{path.name}.probe")
    with replace_file(probe) as temporary:
        temporary.touch()
    probe.unlink()


def check_submission(path: Path, ids: Sequence[str], labels: Labels) -> None:
    """The submission answers exactly `ids`, in their order, each with known label ids, ascending, at least one.

    Raises SubmissionError naming the file and the first row that is wrong.
    """
    known = set(labels.ids)
    rows = list(read_columns(path, HEADER, SubmissionError))
    found = [image_id for image_id, _ in rows]
    if found != list(ids):
        missing, surplus = sorted(set(ids) - set(found)), sorted(set(found) - set(ids))
        detail = (
            f"without {missing[0]}" if missing else f"with {surplus[0]}" if surplus else "doubled or in another order"
        )
        raise SubmissionError(f"{path}: {len(found)} rows, {detail}; wanted the {len(ids)} ids of the sample in order")
    for image_id, cell in rows:
        try:
            given = parse_label_ids(cell)
        except ValueError:
            raise SubmissionError(f"{path}: {image_id}: found {cell!r}; wanted label ids separated by spaces") from None
        if not given:
            raise SubmissionError(f"{path}: {image_id} has no label; wanted at least one")
        unknown = [label for label in given if label not in known]
        if unknown:
            raise SubmissionError(f"{path}: {image_id}: label id {unknown[0]} is not in labels.csv")
        if given != sorted(set(given)):
            raise SubmissionError(f"{path}: {image_id}: found {cell!r}; wanted ascending label ids, each once")


def parse_label_ids(text: str) -> list[int]:
    """Label ids from a cell of `attribute_ids`; raises ValueError where one is not a whole number."""
    return [int(word) for word in text.split()]
