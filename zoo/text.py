"""Figures as text."""

from collections.abc import Sequence

NAMED = 5  # of many images or labels, those that a message names


def align_columns(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of a table, its first `left` columns flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def flatten_message(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
