"""run_log.json, which a run writes beside its submission, as read at home."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from inference.manifest.schema import load_json, parse_record


def read_log(path: Path, kind: type) -> Any:
    """Read the keys of the dataclass `kind` from the log at `path`; ignore all others.

    Raises OSError or UnicodeDecodeError, or ManifestError naming the key.
    """
    return parse_record(kind, _keep_known(kind, load_json(path.read_text(encoding="utf-8"))))


def _keep_known(kind: object, document: object) -> object:
    if not (isinstance(kind, type) and is_dataclass(kind) and isinstance(document, dict)):
        return document
    return {
        field.name: _keep_known(field.type, document[field.name]) for field in fields(kind) if field.name in document
    }
