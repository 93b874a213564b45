"""A table of subcommands: what each does, an example, its arguments, and the function that runs it."""

import argparse
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from inference.basics.errors import VitrineError
from inference.manifest.file import MANIFEST_NAME

Settings = TypeVar("Settings")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
ROOT = Path(__file__).parents[1]
OURS = tuple(str(ROOT / room) for room in ("build_kernel.py", "inference/", "zoo/", "packing/", "training/", "demo/"))
INTERRUPTED = 130  # exit code of a shell's command after Ctrl-C


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
        add_debug(subparser)
        subparser.set_defaults(run=command.run, subcommand=command.name)
    return parser


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Add --debug, which `run_guarded` reads."""
    parser.add_argument("--debug", action="store_true", help="print the Python trace of an error")


def run_command(parser: argparse.ArgumentParser, given: Sequence[str] | None = None) -> int:
    """Run the subcommand that the arguments name; return its exit code, see `run_guarded`."""
    arguments = parser.parse_args(given)
    return run_guarded(functools.partial(arguments.run, arguments), arguments.subcommand, arguments.debug)


def run_guarded(run: Callable[[], None], name: str, debug: bool) -> int:
    """Run a command; return 0, 130 after Ctrl-C, or 1 after any other error, which is printed in one line.

    `debug`: the line follows the trace of the error.
    """
    try:
        run()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read what it wanted; Python must not write the rest when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        interrupted = isinstance(error, KeyboardInterrupt)
        print("interrupted" if interrupted else f"error: {describe_error(error, name)}", file=sys.stderr)
        return INTERRUPTED if interrupted else 1
    return 0


def describe_error(error: BaseException, name: str) -> str:
    """Return the line that a user reads about an error of the command `name`."""
    if isinstance(error, VitrineError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; `make .venv` installs all packages"
    if isinstance(error, MemoryError):
        return f"out of memory in {name}; close other programs, or use a machine with more memory"
    kind, message = type(error).__name__, next(iter(str(error).strip().splitlines()), "no message")
    return f"unexpected {kind} in {name}: {message}{_find_place(error)}; run with --debug for the trace"


def _find_place(error: BaseException) -> str:
    """Return the last line of our own code that an error passed."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    place = next((frame for frame in frames if frame.filename.startswith(OURS)), None)
    if place is None:
        return ""
    module = ".".join(Path(place.filename).relative_to(ROOT).with_suffix("").parts)
    return f" ({module}:{place.lineno})"


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
