"""The command `python -m training score`."""

import argparse
from pathlib import Path

from zoo.commands import Command, add_manifest


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of score."""
    add_manifest(parser)
    parser.add_argument("--submission", type=Path, required=True, metavar="CSV", help="the submission")
    parser.add_argument("--truth", type=Path, required=True, metavar="CSV", help="table like train.csv of its images")


def run_score(arguments: argparse.Namespace) -> None:
    """Run score."""
    from training.scoring.score_submission import print_score

    print_score(arguments.manifest, arguments.submission, arguments.truth)


SCORE = Command(
    "score",
    "print the competition's metric of a submission whose true labels are known",
    "--manifest zoo/weights_manifest.json --submission submission.csv --truth truth.csv",
    add_score_arguments,
    run_score,
)
