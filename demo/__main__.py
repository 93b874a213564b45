"""Command line `python -m demo`: write the demo dataset, to train on it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.collection import TEST_EXHIBITS, TRAIN_EXHIBITS
from demo.competitions import TASKS
from demo.museum import write_museum
from zoo.commands import add_debug, run_guarded


def main(given: Sequence[str] | None = None) -> int:
    """Write the dataset; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Write the demo dataset: labelled images in the format of iMet 2019, or of another competition.",
        epilog="example:\n  python -m demo --out build/museum",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("build/museum"), metavar="DIR", help="folder (build/museum)")
    parser.add_argument(
        "--train", type=int, default=TRAIN_EXHIBITS, metavar="N", help=f"training images ({TRAIN_EXHIBITS})"
    )
    parser.add_argument("--test", type=int, default=TEST_EXHIBITS, metavar="N", help=f"test images ({TEST_EXHIBITS})")
    parser.add_argument(
        "--task", choices=TASKS, default=TASKS[0], help=f"type of competition to draw ({TASKS[0]}, as iMet 2019)"
    )
    add_debug(parser)
    arguments = parser.parse_args(given)

    def run() -> None:
        write_museum(arguments.out, arguments.train, arguments.test, arguments.task)
        print(f"{arguments.out}: {arguments.train} training and {arguments.test} test images")

    return run_guarded(run, "demo", arguments.debug)


if __name__ == "__main__":
    sys.exit(main())
