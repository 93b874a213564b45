"""build_kernel.py check."""

import argparse
from pathlib import Path

from zoo.commands import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the bundle."""
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="the folder that `pack` wrote, or its dataset folder"
    )


def run(arguments: argparse.Namespace) -> None:
    """Check the bundle and print one line."""
    from packing.check.check import check_bundle

    manifest = check_bundle(arguments.bundle)
    print(f"{arguments.bundle}: valid; {len(manifest.models)} models")


CHECK = Command("check", "check a bundle against Kaggle's rules and its own hashes", "build/bundle", add_arguments, run)
