"""Image ids of CSV files."""

from pathlib import Path

from inference.basics.errors import SubmissionError
from inference.basics.tables import read_columns


def read_ids(path: Path, column: str = "id") -> list[str]:
    """Read the ids in a column of a CSV file, in file order; ids are text, so that `1` and `01` differ.

    Raises SubmissionError: no rows, no such column, or an id that is empty or occurs twice.
    """
    ids: list[str] = []
    seen: set[str] = set()
    for (image_id,) in read_columns(path, (column,), SubmissionError):
        if image_id in seen:
            raise SubmissionError(f"{path}: found id {image_id} twice; wanted unique ids")
        if not image_id:
            raise SubmissionError(f"{path}: row {len(ids) + 1}: found an empty id; wanted an image id")
        seen.add(image_id)
        ids.append(image_id)
    if not ids:
        raise SubmissionError(f"{path}: found no rows; wanted one row per test image")
    return ids
