"""Values of a manifest changed by their keys, checked by the schema before anything is written."""

import argparse
import copy
import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.basics.errors import ManifestError, OptionError
from inference.manifest.file import parse_manifest, read_manifest, write_manifest
from inference.manifest.schema import join_key, suggest
from zoo.commands import read_duration

TIMES = ("runtime.time_limit", "runtime.notebook_reserve")  # in seconds; 4h and 90m are read too


def set_values(path: Path, changes: Sequence[str]) -> list[str]:
    """Apply changes such as runtime.time_limit=4h to the manifest at `path`; return a line 'key: old -> new' for each.

    Writes all of them or nothing. Raises OptionError: a change is not KEY=VALUE, or a key is given twice; ManifestError
    naming the key: no such key, or a value that the schema refuses.
    """
    before = json.loads(json.dumps(dataclasses.asdict(read_manifest(path))))
    document, lines, seen = copy.deepcopy(before), [], set[str]()
    for change in changes:
        key, separator, text = change.partition("=")
        if not separator or not key:
            raise OptionError(f"set: found {change!r}; wanted KEY=VALUE, as in runtime.time_limit=4h")
        if key in seen:
            raise OptionError(f"set: found {key} twice; wanted each key once")
        seen.add(key)
        owner, name = find_place(document, key)
        old = owner[name] if isinstance(owner, list) else owner.get(name)
        owner[name] = parse_value(key, text, old)
        lines.append(f"{key}: {show(old)} -> {show(owner[name])}")
    try:
        manifest = parse_manifest(document)
    except ManifestError as error:
        raise ManifestError(f"{path.name}: {error}") from error
    write_manifest(manifest, path)
    return lines


def find_place(document: Any, key: str) -> tuple[Any, Any]:
    """Return the object or list that holds the value of a key, and its name or index there.

    `models[0].fold` and `models.0.fold` are the same; a name with dots, such as that of a model, is found where it
    exists. Raises ManifestError: the way to the value does not exist.
    """
    parts = re.sub(r"\[(\d+)\]", r".\1", key).split(".")
    place, passed = document, ""
    while True:
        if isinstance(place, list):
            name: Any = find_index(place, parts[0], passed)
            taken = 1
        elif isinstance(place, dict):
            taken = next((count for count in range(len(parts), 0, -1) if ".".join(parts[:count]) in place), 0)
            name = ".".join(parts[: taken or len(parts)])
            if not taken and len(parts) > 1:
                raise ManifestError(f"`{join_key(passed, parts[0])}`: unknown key{suggest(parts[0], place, passed)}")
        else:
            raise ManifestError(f"`{key}`: `{passed}` is {show(place)}, which has no parts; set `{passed}` itself")
        parts = parts[taken or len(parts) :]
        if not parts:
            return place, name
        place, passed = place[name], join_key(passed, str(name))


def find_index(entries: list[Any], text: str, passed: str) -> int:
    """Return the index of an entry of a list; raises ManifestError: there is none."""
    if not text.isdecimal() or int(text) >= len(entries):
        raise ManifestError(f"`{passed}[{text}]`: no such entry; `{passed}` has {len(entries)}, counted from 0")
    return int(text)


def parse_value(key: str, text: str, old: Any) -> Any:
    """Return the value of a change: JSON, or text; a number that replaces text stays text.

    Raises OptionError: a time is none.
    """
    if key in TIMES:
        try:
            return round(read_duration(text))
        except argparse.ArgumentTypeError as error:
            raise OptionError(f"{key}: {error}") from error
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(old, str) and value is not None and not isinstance(value, str) else value


def show(value: Any) -> str:
    """Return a value as JSON."""
    return json.dumps(value, ensure_ascii=False)
