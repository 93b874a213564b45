"""The commands fit and oof of `python -m training`."""

import argparse
from pathlib import Path

from inference.manifest.file import MANIFEST_NAME
from zoo.commands import Command, read_settings


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of fit."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, such as those in training/recipes")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="the competition's folder: images, and labels.csv and train.csv if OUT has none",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder of the zoo")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help=f"the manifest to extend (OUT/{MANIFEST_NAME})")
    parser.add_argument("--folds", type=Path, metavar="CSV", help="the fold of each id (OUT/folds.csv, or a new split)")
    parser.add_argument("--fold", type=int, metavar="K", help="train only the network that holds out fold K (all)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run; skip finished folds")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows of train.csv")
    add_reading_arguments(parser)
    parser.add_argument(
        "--save-minutes", type=float, default=10.0, metavar="M", help="minutes between two saved states (10)"
    )
    parser.add_argument(
        "--mixed-precision", choices=("no", "fp16", "bf16"), help="precision of the arithmetic (accelerate's setting)"
    )


def add_oof_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of oof."""
    parser.add_argument("names", nargs="*", metavar="MODEL", help="names of models or members (all)")
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="the zoo's manifest")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="the competition's folder: images, and train.csv if none is beside the manifest",
    )
    parser.add_argument("--folds", type=Path, metavar="CSV", help="the fold of each id (folds.csv beside the manifest)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows of train.csv, as in training")
    add_reading_arguments(parser)


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for reading images."""
    parser.add_argument("--allow-missing", action="store_true", help="skip images that have no file")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that read images, 0 for none (1)"
    )


def run_fit(arguments: argparse.Namespace) -> None:
    """Train the networks of the recipe."""
    from training.data.material import FitSettings
    from training.fit.train_folds import fit

    fit(read_settings(FitSettings, arguments))


def run_oof(arguments: argparse.Namespace) -> None:
    """Predict what each model held out."""
    from training.fit.predict_again import OofSettings, predict_zoo

    predict_zoo(read_settings(OofSettings, arguments))


FIT = Command(
    "fit",
    "train one network per fold of a recipe, and add each to the manifest with its out-of-fold predictions",
    "training/recipes/place7/resnet34_350_all.toml --data ../imet-2019-fgvc6 --out zoo\n"
    "several GPUs:\n"
    "  accelerate launch --multi_gpu -m training fit RECIPE --data ../imet-2019-fgvc6 --out zoo",
    add_fit_arguments,
    run_fit,
)
OOF = Command(
    "oof",
    "predict the held-out images of each model again, with the current views of the manifest",
    "--manifest zoo/weights_manifest.json --data ../imet-2019-fgvc6",
    add_oof_arguments,
    run_oof,
)
