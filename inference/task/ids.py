"""TODO."""

from pathlib import Path

from inference.basics.errors import SubmissionError
from inference.basics.tables import read_columns


def read_ids(path: Path) -> list[str]:
    """Image ids of any CSV with an `id` column, in file order.

    Raises SubmissionError naming the file: no rows, no such column, an id that is empty or given twice.
    """
    ids: list[str] = []
    seen: set[str] = set()
    for (image_id,) in read_columns(path, ("id",), SubmissionError):
        if image_id in seen:
            raise SubmissionError(f"{path}: id {image_id} is given twice; ids must differ")
        if not image_id:
            raise SubmissionError(f"{path}: row {len(ids) + 1} has an empty id")
        seen.add(image_id)
        ids.append(image_id)
    if not ids:
        raise SubmissionError(f"{path}: empty; wanted a row for each test image")
    return ids
