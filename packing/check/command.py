"""build_kernel.py check."""

import argparse
from pathlib import Path

from inference.__main__ import add_attached
from zoo.commands import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the bundle and the competition's folder."""
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="the folder that `pack` wrote, or its dataset folder"
    )
    parser.add_argument(
        "--competition",
        type=Path,
        metavar="DIR",
        help="also compare the sample and the images of the competition's folder with `task` of the manifest",
    )
    add_attached(parser)


def run(arguments: argparse.Namespace) -> None:
    """Check the bundle and print one line, and four on the competition's folder."""
    from packing.check.check import check_bundle
    from packing.check.competition import open_contents

    manifest, labels = check_bundle(arguments.bundle, arguments.attached)
    if arguments.competition:
        contents = open_contents(arguments.competition, manifest.task, labels)
        print(contents.describe(arguments.competition, manifest.task))
    print(f"{arguments.bundle}: valid; {len(manifest.models)} models")


CHECK = Command("check", "check a bundle against Kaggle's rules and its own hashes", "build/bundle", add_arguments, run)
