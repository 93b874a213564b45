"""The command `build_kernel.py ensemble`."""

import argparse
from pathlib import Path

from zoo.commands import Command, add_manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_manifest(parser)
    parser.add_argument("--train", type=Path, required=True, metavar="CSV", help="train.csv: the truth")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="training images, or the competition's folder if train.csv names their files; the trees use their "
        "brightness and size",
    )
    parser.add_argument("--folds", type=int, default=3, metavar="N", help="outer folds that judge each method (3)")
    parser.add_argument(
        "--without",
        action="append",
        choices=("cnn", "trees"),
        default=[],
        help="leave out a stacker; repeat to leave out both: then only the blend and the decision rules are fitted",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the folds and the stackers (0)")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from training.second_stage.fit_ensemble import StageSettings, fit_second_stage
    from training.second_stage.fitted import LayerSettings

    settings = StageSettings(
        manifest=arguments.manifest,
        train=arguments.train,
        images=arguments.images,
        folds=arguments.folds,
        layers=LayerSettings(
            cnn="cnn" not in arguments.without, trees="trees" not in arguments.without, seed=arguments.seed
        ),
    )
    fit_second_stage(settings)


ENSEMBLE = Command(
    "ensemble",
    "fit the ensemble to out-of-fold predictions: blend weights, stackers, decision rules",
    "--train data/train.csv --images data/train",
    add_arguments,
    run,
)
