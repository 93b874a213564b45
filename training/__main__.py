"""The command line of training: python -m training."""

import sys
from collections.abc import Sequence

from training.fit.command import FIT, OOF
from training.pages.command import COMPARE, EXPLAIN, EXPLORE, SLICES
from training.scoring.command import SCORE
from zoo.commands import build_parser, run_command

PARSER = build_parser(
    "python -m training",
    "From images to a zoo of checkpoints with out-of-fold predictions.",
    (FIT, OOF, EXPLORE, EXPLAIN, SLICES, COMPARE, SCORE),
)


def main(given: Sequence[str] | None = None) -> int:
    """Run one subcommand; 1 after an error, which takes one line."""
    return run_command(PARSER, given)


if __name__ == "__main__":
    sys.exit(main())
