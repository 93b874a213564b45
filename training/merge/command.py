"""The command `build_kernel.py merge`."""

import argparse
from pathlib import Path

from inference.__main__ import add_attached
from zoo.commands import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the manifests and how they are combined."""
    parser.add_argument(
        "manifests",
        type=Path,
        nargs="+",
        metavar="MANIFEST",
        help="weights_manifest.json of each zoo or packed dataset, yours first: its labels, task and prior hold",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder of the team's zoo")
    parser.add_argument(
        "--train", type=Path, metavar="CSV", help="train.csv: checks the image ids, and measures each model"
    )
    parser.add_argument(
        "--weights",
        type=float,
        nargs="+",
        metavar="W",
        help="one per manifest (equal; with --keep-stages fitted to common out-of-fold images)",
    )
    parser.add_argument(
        "--prefixes",
        nargs="+",
        metavar="TEXT",
        help="one per manifest, before its names (the folder's name, where two zoos have the same names)",
    )
    parser.add_argument(
        "--keep-stages",
        action="store_true",
        help="keep each zoo's second stage as it is and average their scores, instead of fitting one over all models",
    )
    parser.add_argument("--copy", action="store_true", help="copy the files instead of linking them")
    add_attached(parser)


def run(arguments: argparse.Namespace) -> None:
    """Merge the zoos and print the tables."""
    from training.merge.merge_zoos import MergeSettings, merge_zoos
    from zoo.commands import read_settings

    merge_zoos(read_settings(MergeSettings, arguments))


MERGE = Command(
    "merge",
    "merge the zoos and bundles of a team into one zoo",
    "mine/weights_manifest.json theirs/weights_manifest.json --out team --train data/train.csv",
    add_arguments,
    run,
)
