"""A table of subcommands: what each does, an example, its arguments, and the function that runs it."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from inference.basics.errors import VitrineError
from inference.manifest.file import MANIFEST_NAME

Settings = TypeVar("Settings")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Command:
    """One subcommand; its module imports what it needs only when it runs, so that `--help` is quick."""

    name: str
    purpose: str
    example: str
    """Its arguments in the example that `--help` shows."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def build_parser(program: str, purpose: str, commands: Sequence[Command]) -> argparse.ArgumentParser:
    """Build the parser of a table of subcommands; `program`: the command line before them, such as `python x.py`."""
    epilog = f"`{program} COMMAND --help` shows an example of each."
    parser = argparse.ArgumentParser(prog=program, description=purpose, epilog=epilog)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in commands:
        subparser = subparsers.add_parser(
            command.name,
            help=command.purpose,
            description=command.purpose,
            epilog=f"example:\n  {program} {command.name} {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def run_command(parser: argparse.ArgumentParser, given: Sequence[str] | None = None) -> int:
    """Run the subcommand that the arguments name; return exit code 0, or 1 after an error, printed in one line."""
    arguments = parser.parse_args(given)
    try:
        arguments.run(arguments)
    except VitrineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: {error}; `make .venv` installs all packages", file=sys.stderr)
        return 1
    return 0


def read_settings(kind: type[Settings], arguments: argparse.Namespace) -> Settings:
    """The dataclass `kind` from the arguments of the same names."""
    return kind(**{name: getattr(arguments, name) for name in kind.__dataclass_fields__})  # type: ignore[attr-defined]


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """Add --manifest, which defaults to the manifest of this checkout."""
    parser.add_argument(
        "--manifest",
        type=Path,
        default=Path(MANIFEST_NAME),
        metavar="FILE",
        help=f"the zoo's manifest ({MANIFEST_NAME})",
    )


def read_duration(text: str) -> float:
    """Return the seconds of '9h', '90m', '32400s' or '32400'; a type for argparse."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"found {text!r}; wanted a time such as 9h, 90m or 32400")
    return float(found[1]) * SECONDS[found[2]]
