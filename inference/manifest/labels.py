"""labels.csv: the labels, in the order of the outputs of every model, and their groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import LabelsError
from inference.basics.tables import read_columns, read_header
from inference.manifest.model import ALL, FEATURES, Model

COLUMNS = ("label_id", "label_name")
IMET_COLUMNS = ("attribute_id", "attribute_name")
ONE_GROUP = {"labels": ""}  # the groups of labels without a prefix


@dataclass(frozen=True)
class Labels:
    """Labels in file order; the position of a label is its column in every array of scores."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]]
    """Columns of each group, ascending."""

    def columns(self, group: str) -> tuple[int, ...]:
        """Return the columns of a group, ascending; all columns for 'all', none for 'features'."""
        if group == FEATURES:
            return ()
        return tuple(range(len(self.ids))) if group == ALL else self.groups[group]

    def count_outputs(self, model: Model) -> int:
        """Return the number of scores per image of a model: one per label of its group, or its features."""
        return model.outputs or len(self.columns(model.group))

    @property
    def owners(self) -> tuple[int, ...]:
        """The index in `groups` of each label's group."""
        places = {column: place for place, columns in enumerate(self.groups.values()) for column in columns}
        return tuple(places[column] for column in range(len(self.ids)))


def read_group_prefixes(path: Path) -> dict[str, str]:
    """Read the groups of labels.csv and the prefixes of their labels' names, in file order.

    `culture::abruzzi` gives the group culture and the prefix `culture::`. Labels without `::` are one group. Raises
    LabelsError: only some labels have a group.
    """
    prefixes: dict[str, str] = {}
    bare = ""
    for text, name in read_columns(path, find_columns(path), LabelsError):
        group, separator, _ = name.partition("::")
        if group and separator:
            prefixes[group] = group + separator
        else:
            bare = bare or f"label {text}: found {name!r}"
        if bare and prefixes:
            raise LabelsError(f"{path}: {bare}; wanted GROUP::NAME, as in tag::men, for all labels or for none")
    return prefixes or dict(ONE_GROUP)


def find_columns(path: Path) -> tuple[str, str]:
    """Return the names of the columns of labels.csv: iMet's own if it has them."""
    return IMET_COLUMNS if IMET_COLUMNS[0] in read_header(path, LabelsError) else COLUMNS


def read_labels(path: Path, prefixes: Mapping[str, str]) -> Labels:
    """Read a file with the columns `label_id` and `label_name`, or `attribute_id` and `attribute_name` as iMet's.

    `prefixes`: group -> prefix of its labels' names. Raises LabelsError naming the label: its id is no whole number,
    its id or name occurs twice, or it belongs to no group or to several; or naming a group without labels.
    """
    ids: list[int] = []
    names: list[str] = []
    groups: dict[str, list[int]] = {group: [] for group in prefixes}
    seen: set[int] = set()
    named: set[str] = set()
    header = find_columns(path)
    for text, name in read_columns(path, header, LabelsError):
        try:
            label = int(text)
        except ValueError:
            raise LabelsError(f"{path}: found {header[0]} {text!r}; wanted a whole number") from None
        if label in seen:
            raise LabelsError(f"{path}: found {header[0]} {label} twice; wanted unique ids")
        if name in named:
            raise LabelsError(f"{path}: found {header[1]} {name!r} twice; wanted unique names")
        owners = [group for group, prefix in prefixes.items() if name.startswith(prefix)]
        if len(owners) != 1:
            shown = ", ".join(f"{group} ({prefix!r})" for group, prefix in prefixes.items())
            found = "no group" if not owners else f"{len(owners)} groups"
            raise LabelsError(f"{path}: label {label} {name!r}: found {found}; wanted one of: {shown}")
        groups[owners[0]].append(len(ids))
        seen.add(label)
        named.add(name)
        ids.append(label)
        names.append(name)
    for group, columns in groups.items():
        if not columns:
            raise LabelsError(
                f"{path}: group {group!r}: found no label; wanted names starting with {prefixes[group]!r}"
            )
    return Labels(tuple(ids), tuple(names), {group: tuple(columns) for group, columns in groups.items()})
