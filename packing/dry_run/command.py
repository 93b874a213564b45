"""build_kernel.py dry-run."""

import argparse
from pathlib import Path

from inference.__main__ import add_attached
from zoo.commands import Command, read_duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the bundle, the competition's folder, the limits, and the options of --like-kaggle."""
    parser.add_argument(
        "--bundle", type=Path, required=True, metavar="DIR", help="the dataset folder that `pack` wrote"
    )
    parser.add_argument(
        "--competition",
        type=Path,
        required=True,
        metavar="DIR",
        help="the competition's folder, with the sample and the test images where `task` of the manifest places them",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder for submission.csv and run_log.json"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument(
        "--images", type=int, metavar="N", help="number of test images of the rerun (`runtime.images`, or the sample's)"
    )
    parser.add_argument("--time-limit", type=read_duration, metavar="TIME", help="such as 9h or 90m (the manifest's)")
    parser.add_argument("--predictions", action="store_true", help="keep each model's scores in OUT/predictions")
    parser.add_argument(
        "--lenient", action="store_true", help="accept a degraded submission (exit code 3), as Kaggle would"
    )
    parser.add_argument(
        "--like-kaggle", action="store_true", help="run the notebook in an environment similar to Kaggle's image"
    )
    parser.add_argument(
        "--layout",
        choices=("newer", "older"),
        default="newer",
        help="Kaggle's mount layout, with --like-kaggle (newer)",
    )
    parser.add_argument(
        "--python", metavar="PYTHON", help="the environment's Python (python3.12, or the nearest version found)"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("build"), metavar="DIR", help="folder of the environment (build)"
    )
    add_attached(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the script, or with --like-kaggle the notebook, and print the result."""
    if arguments.like_kaggle:
        run_notebook(arguments)
        return
    from packing.dry_run.run_script import rehearse

    rehearsal = rehearse(
        arguments.bundle,
        arguments.competition,
        arguments.out,
        arguments.limit,
        arguments.time_limit,
        arguments.predictions,
        not arguments.lenient,
        arguments.images,
        arguments.attached,
    )
    print(f"{arguments.out / 'submission.csv'}: valid\n{rehearsal.describe()}")


def run_notebook(arguments: argparse.Namespace) -> None:
    """Run the notebook and print the result."""
    from packing.dry_run.run_notebook import PAGE, rehearse_like_kaggle

    rehearsal = rehearse_like_kaggle(
        arguments.bundle,
        arguments.competition,
        arguments.out,
        arguments.cache,
        arguments.limit,
        arguments.time_limit,
        arguments.layout,
        arguments.python,
        expected=arguments.images,
        attached=arguments.attached,
    )
    print(f"{arguments.out / 'submission.csv'}: valid; page: {arguments.out / PAGE}\n{rehearsal.describe()}")


DRY_RUN = Command(
    "dry-run",
    "run a bundle on this machine under Kaggle's conditions, and check its submission",
    "--bundle build/bundle/dataset --competition data --out build/dry-run",
    add_arguments,
    run,
)
