"""The order of a network's outputs, read from a list of labels or from another labels.csv."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from inference.basics.errors import LabelsError
from inference.basics.files import read_text
from inference.basics.tables import read_columns
from inference.manifest.labels import COLUMNS, IMET_COLUMNS, Labels


def read_label_order(path: Path, labels: Labels, group: str) -> tuple[int, ...]:
    """Return the label ids of a group in the order of a file; () if that is the order of labels.csv.

    `path`: label ids or label names, one per line, or a labels.csv, whose labels of other groups do not count and whose
    ids may differ if its names are the same. Raises LabelsError: a label is unknown, missing or listed twice.
    """
    own = [labels.ids[column] for column in labels.columns(group)]
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    header = lines[0].replace('"', "").split(",") if lines else []
    columns = next((names for names in (COLUMNS, IMET_COLUMNS) if set(names) <= set(header)), None)
    if columns is not None:
        rows = list(read_columns(path, columns, LabelsError))
        ids = _match(path, [row[0] for row in rows], [row[1] for row in rows], labels)
        ids = [label for label in ids if label in own]
    else:
        cells = [line.strip() for line in lines]
        ids = _match(path, cells, cells, labels)
    _check(path, ids, own, group)
    return () if ids == own else tuple(ids)


def _match(path: Path, numbers: Sequence[str], names: Sequence[str], labels: Labels) -> list[int]:
    """Return the ids of labels given by name, or by id if none of the names is known."""
    by_name: Mapping[str, int] = dict(zip(labels.names, labels.ids, strict=True))
    by_id: Mapping[str, int] = {str(label): label for label in labels.ids}
    known, cells = (by_name, names) if any(name in by_name for name in names) else (by_id, numbers)
    for place, cell in enumerate(cells):
        if cell not in known:
            raise LabelsError(
                f"{path}: label {place + 1}: found {cell!r}; wanted a label_id or a label_name of labels.csv"
            )
    return [known[cell] for cell in cells]


def _check(path: Path, ids: Sequence[int], own: Sequence[int], group: str) -> None:
    wanted = f"wanted each of the {len(own)} labels of {group!r} once"
    twice = next((label for label in ids if ids.count(label) > 1), None)
    if twice is not None:
        raise LabelsError(f"{path}: found label {twice} twice; {wanted}")
    foreign = [label for label in ids if label not in own]
    missing = [label for label in own if label not in ids]
    if foreign or missing:
        found = f"label {foreign[0]}, which is of another group" if foreign else f"no label {missing[0]}"
        raise LabelsError(f"{path}: found {found}; {wanted}")
