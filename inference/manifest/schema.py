"""Parsing of JSON into frozen dataclasses; unknown keys are errors, and every message names the key."""

import dataclasses
import difflib
import json
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from inference.basics.errors import ManifestError


def parse_record(kind: type, value: object, key: str = "") -> Any:
    """Parse a JSON object at `key` into the dataclass `kind`, fields recursively.

    Fields with a default are optional. Raises ManifestError naming the key, what was found and what was wanted.
    """
    if not isinstance(value, dict):
        raise refuse(key, value, "an object")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            raise ManifestError(f"`{join_key(key, name)}`: unknown key{suggest(name, fields, key)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    parsed = {}
    for name, field in fields.items():
        if name in value:
            parsed[name] = _parse_value(hints[name], value[name], join_key(key, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ManifestError(f"`{join_key(key, name)}`: missing; wanted {_describe(hints[name])}")
    return kind(**parsed)


def load_json(text: str) -> object:
    """Parse JSON. Raises ManifestError: a syntax error, with its line, or a key that occurs twice in one object."""
    try:
        return json.loads(text, object_pairs_hook=_refuse_duplicate_keys)
    except json.JSONDecodeError as error:
        raise ManifestError(f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except ValueError as error:  # a number with more digits than Python converts
        raise ManifestError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise ManifestError("not a manifest: nested too deeply") from error


def refuse(key: str, found: object, wanted: str) -> ManifestError:
    """Return the error for a value that differs from what was wanted."""
    shown = json.dumps(found, default=str)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    return ManifestError(f"`{key or '(the whole file)'}`: found {shown}; wanted {wanted}")


def suggest(name: str, known: typing.Iterable[str], key: str = "") -> str:
    """Return '; did you mean …?' with the most similar known name, or a list of all known names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean `{join_key(key, near[0])}`?"
    return f"; known keys: {', '.join(known)}"


def join_key(key: str, name: str) -> str:
    """Join `models[0]` and `name` to `models[0].name`."""
    return f"{key}.{name}" if key else name


def _parse_value(hint: Any, value: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        if isinstance(arguments[0], types.UnionType) and not isinstance(value, _list_types(arguments[0])):
            raise refuse(key, value, _describe(hint))
        parsed = _parse_value(arguments[0], value, key)
        for rule in arguments[1:]:
            if not rule.holds(parsed):
                raise refuse(key, value, rule.wanted)
        return parsed
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        kinds = [kind for kind in arguments if kind is not types.NoneType]
        fitting = (kind for kind in kinds if isinstance(value, list) == (typing.get_origin(kind) is tuple))
        return _parse_value(next(fitting, kinds[0]), value, key)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):  # True equals 1 in Python
            raise refuse(key, value, _describe(hint))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise refuse(key, value, "a list")
        return tuple(_parse_value(arguments[0], item, f"{key}[{index}]") for index, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise refuse(key, value, "an object")
        for name in value:
            _parse_value(arguments[0], name, join_key(key, name))
        return {name: _parse_value(arguments[1], item, join_key(key, name)) for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return parse_record(typing.cast(type, hint), value, key)
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise refuse(key, value, _describe(hint))
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise refuse(key, value, "text without lone surrogates, which UTF-8 cannot encode")
    return value


def _list_types(union: types.UnionType) -> tuple[type, ...]:
    """Return the types that JSON has for the kinds of a union."""
    return tuple(list if typing.get_origin(kind) is tuple else kind for kind in typing.get_args(union))


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return str(arguments[-1].wanted)
    if origin is typing.Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin is tuple:
        return "a list"
    return {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}.get(hint, "an object")


def _refuse_duplicate_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    merged: dict[str, object] = {}
    for name, value in pairs:
        if name in merged:
            raise ManifestError(f"`{name}`: found twice in one object; keep one")
        merged[name] = value
    return merged
