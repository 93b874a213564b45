"""labels.csv: the labels in the order of every model's head, and the groups they fall into."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import LabelsError
from inference.basics.tables import read_columns
from inference.manifest.records import ALL


@dataclass(frozen=True)
class Labels:
    """Labels in file order: the position of a label is its column in every array of scores."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]]

    def columns(self, group: str) -> tuple[int, ...]:
        """Columns of a group's labels, ascending; all columns for 'all'."""
        return tuple(range(len(self.ids))) if group == ALL else self.groups[group]

    @property
    def owners(self) -> tuple[int, ...]:
        """The place of each label's group among the groups."""
        places = {column: place for place, columns in enumerate(self.groups.values()) for column in columns}
        return tuple(places[column] for column in range(len(self.ids)))


def read_group_prefixes(path: Path) -> dict[str, str]:
    """Groups and prefixes as the names of labels.csv spell them, `culture::abruzzi` giving culture its `culture::`.

    In file order. Raises LabelsError naming the first label without `::`.
    """
    prefixes: dict[str, str] = {}
    for text, name in read_columns(path, ("attribute_id", "attribute_name"), LabelsError):
        group, separator, _ = name.partition("::")
        if not group or not separator:
            raise LabelsError(f"{path}: label {text} {name!r} names no group; wanted GROUP::NAME, as in tag::men")
        prefixes[group] = group + separator
    return prefixes


def read_labels(path: Path, prefixes: Mapping[str, str]) -> Labels:
    """Labels of a file with `attribute_id` and `attribute_name`; `prefixes` maps a group to its names' prefix.

    Raises LabelsError naming the label: an id that is no number or given twice, a label of no group or of two, a
    group without labels.
    """
    ids: list[int] = []
    names: list[str] = []
    groups: dict[str, list[int]] = {group: [] for group in prefixes}
    seen: set[int] = set()
    for text, name in read_columns(path, ("attribute_id", "attribute_name"), LabelsError):
        try:
            label = int(text)
        except ValueError:
            raise LabelsError(f"{path}: found attribute_id {text!r}; wanted a whole number") from None
        if label in seen:
            raise LabelsError(f"{path}: attribute_id {label} is given twice; ids must differ")
        owners = [group for group, prefix in prefixes.items() if name.startswith(prefix)]
        if len(owners) != 1:
            shown = ", ".join(f"{group} ({prefix!r})" for group, prefix in prefixes.items())
            found = "no group" if not owners else f"{len(owners)} groups"
            raise LabelsError(f"{path}: label {label} {name!r} belongs to {found}; wanted one of: {shown}")
        groups[owners[0]].append(len(ids))
        seen.add(label)
        ids.append(label)
        names.append(name)
    for group, columns in groups.items():
        if not columns:
            raise LabelsError(f"{path}: group {group!r} has no label: none starts with {prefixes[group]!r}")
    return Labels(tuple(ids), tuple(names), {group: tuple(columns) for group, columns in groups.items()})
