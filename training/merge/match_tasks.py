"""The tasks of two zoos, compared: scores of different tasks cannot be averaged."""

import dataclasses
from typing import Any

from inference.basics.errors import ManifestError
from inference.manifest.task import Task
from zoo.tables.out_of_fold import Zoo

COMPARED = ("type", "metric", "submission", "value_range")
"""The other keys say where files are: those of the first zoo hold."""


def check_tasks(team: Zoo, zoo: Zoo) -> None:
    """Raise ManifestError naming the first key of `task` in which the zoos differ, and both values."""
    wanted, found = _flatten(team.manifest.task), _flatten(zoo.manifest.task)
    for key, value in wanted.items():
        if found[key] != value:
            raise ManifestError(f"{zoo.path}: `{key}`: found {found[key]!r}; wanted {value!r}, as in {team.path}")


def _flatten(task: Task) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in COMPARED:
        value = getattr(task, key)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            values |= {f"task.{key}.{name}": part for name, part in dataclasses.asdict(value).items()}
        else:
            values[f"task.{key}"] = value
    return values
