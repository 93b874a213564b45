"""Text for tables and messages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMED = 5  # most images or labels that a message names


def align_columns(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return the lines of a table, with the first `left` columns flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def flatten_message(error: Exception) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def render_template(template: Path, **values: Any) -> str:
    """Fill a Jinja template of an HTML page; texts are escaped, and a missing value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(template.parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template.name).render(**values)
