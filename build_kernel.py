#!/usr/bin/env python3
"""Command line: from trained checkpoints to a Kaggle bundle, one subcommand per step."""

import sys
from collections.abc import Sequence

from demo.command import make_command
from packing.add.command import ADD
from packing.check.command import CHECK
from packing.dry_run.command import DRY_RUN
from packing.export.command import EXPORT
from packing.init.command import INIT
from packing.pack.command import PACK
from packing.plan.command import PLAN
from packing.set.command import SET
from packing.upload.command import UPLOAD
from training.merge.command import MERGE
from training.second_stage.command import ENSEMBLE
from zoo.commands import build_parser, run_command


def run_step(words: Sequence[str]) -> None:
    """Run one subcommand inside another. Raises VitrineError."""
    arguments = PARSER.parse_args(words)
    arguments.run(arguments)


COMMANDS = (
    INIT,
    SET,
    ADD,
    MERGE,
    ENSEMBLE,
    EXPORT,
    PLAN,
    PACK,
    CHECK,
    DRY_RUN,
    UPLOAD,
    make_command(run_step),
)
PARSER = build_parser("python build_kernel.py", "From trained checkpoints to a Kaggle bundle.", COMMANDS)


def main(given: Sequence[str] | None = None) -> int:
    """Run one subcommand; return 0, or 1 after an error, which is printed on one line."""
    return run_command(PARSER, given)


if __name__ == "__main__":
    sys.exit(main())
