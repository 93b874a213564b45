"""The command line of training: python -m training fit, oof, explore, explain, slices, compare."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.basics.errors import VitrineError
from inference.manifest.file import MANIFEST_NAME

FIT_EXAMPLE = """example:
  python -m training fit training/recipes/seventh/seresnext50_336_culture.toml --data ../imet-2019-fgvc6 --out zoo
  accelerate launch --multi_gpu -m training fit …   (the same on several GPUs)
"""
OOF_EXAMPLE = """example:
  python -m training oof --manifest zoo/weights_manifest.json --data ../imet-2019-fgvc6
"""
EXPLORE_EXAMPLE = """example:
  python -m training explore --data ../imet-2019-fgvc6 --images 5000
"""
EXPLAIN_EXAMPLE = """example:
  python -m training explain --manifest zoo/weights_manifest.json --images ../imet-2019-fgvc6/train --out overlays \\
      --train ../imet-2019-fgvc6/train.csv 1000483014d91860 1000fe2e667721fe
"""
SLICES_EXAMPLE = """example:
  python -m training slices --manifest zoo/weights_manifest.json --train ../imet-2019-fgvc6/train.csv \\
      --images ../imet-2019-fgvc6/train
"""
COMPARE_EXAMPLE = """example:
  python -m training compare --train ../imet-2019-fgvc6/train.csv zoo/weights_manifest.json zoo/weights_manifest.json \\
      --models-a resnet34_350_all --models-b seresnext50_336_culture seresnext50_336_tag
"""


def build_parser() -> argparse.ArgumentParser:
    """The subcommands and their options."""
    parser = argparse.ArgumentParser(prog="python -m training", description="From images to a zoo and its thresholds.")
    commands = parser.add_subparsers(dest="command", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    text = "train the networks of a recipe, one a fold, and declare them with their out-of-fold predictions"
    fit = commands.add_parser("fit", help=text, description=text, epilog=FIT_EXAMPLE, formatter_class=raw)
    fit.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, such as those in training/recipes")
    fit.add_argument("--data", type=Path, required=True, metavar="DIR", help="labels.csv, train.csv and train/ID.png")
    fit.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the zoo grows")
    fit.add_argument("--manifest", type=Path, metavar="FILE", help=f"where to declare it (OUT/{MANIFEST_NAME})")
    fit.add_argument("--folds", type=Path, metavar="CSV", help="the fold of each id (OUT/folds.csv, made if not there)")
    fit.add_argument("--fold", type=int, metavar="K", help="train only the network that holds out fold K (all)")
    fit.add_argument("--resume", action="store_true", help="go on where an earlier run was cut off")
    fit.add_argument("--limit", type=int, metavar="N", help="use the first N rows of train.csv only")
    fit.add_argument("--allow-missing", action="store_true", help="go on without the images that have no file")
    fit.add_argument("--workers", type=int, default=1, metavar="N", help="processes that read images, 0 for none (1)")
    fit.add_argument(
        "--save-minutes", type=float, default=10, metavar="M", help="about how much work a kill may cost (10)"
    )
    fit.add_argument("--mixed-precision", choices=("no", "fp16", "bf16"), help="of the arithmetic (as accelerate says)")
    text = "predict anew what each model of a zoo held out, by the views that the manifest gives it now"
    oof = commands.add_parser("oof", help=text, description=text, epilog=OOF_EXAMPLE, formatter_class=raw)
    oof.add_argument("models", nargs="*", metavar="MODEL", help="names of models (all)")
    oof.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="the zoo")
    oof.add_argument("--data", type=Path, required=True, metavar="DIR", help="train.csv and train/ID.png")
    oof.add_argument("--folds", type=Path, metavar="CSV", help="the fold of each id (folds.csv beside the manifest)")
    oof.add_argument("--limit", type=int, metavar="N", help="the first N rows of train.csv only, as in training")
    oof.add_argument("--allow-missing", action="store_true", help="go on without the images that have no file")
    oof.add_argument("--workers", type=int, default=1, metavar="N", help="processes that read images, 0 for none (1)")
    add_views_of_a_zoo(commands)
    return parser


def add_views_of_a_zoo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommands that show data and models, and change nothing."""
    raw = argparse.RawDescriptionHelpFormatter
    text = "write a page of plots about a training folder: pixels, sizes, labels"
    explore = commands.add_parser("explore", help=text, description=text, epilog=EXPLORE_EXAMPLE, formatter_class=raw)
    explore.add_argument("--data", type=Path, required=True, metavar="DIR", help="labels.csv, train.csv, train/, test/")
    explore.add_argument(
        "--out", type=Path, default=Path("explore.html"), metavar="FILE", help="the page (explore.html)"
    )
    explore.add_argument("--images", type=int, metavar="N", help="look at the pixels of N images of each part (all)")
    text = "show where the culture model and the tag model look: Grad-CAM overlays, a picture for each image"
    explain = commands.add_parser("explain", help=text, description=text, epilog=EXPLAIN_EXAMPLE, formatter_class=raw)
    explain.add_argument("ids", nargs="+", metavar="ID", help="images")
    explain.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="the zoo")
    explain.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of ID.png")
    explain.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the pictures go")
    explain.add_argument("--models", nargs="+", default=[], metavar="MODEL", help="a model a group (the blend's first)")
    explain.add_argument("--train", type=Path, metavar="CSV", help="train.csv, to say which labels are true")
    text = "F2 of each model and of the blend, for long images, rare labels and each group, out of fold"
    slices = commands.add_parser("slices", help=text, description=text, epilog=SLICES_EXAMPLE, formatter_class=raw)
    slices.add_argument("--train", type=Path, required=True, metavar="CSV", help="train.csv: the true labels")
    slices.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of ID.png")
    slices.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="the zoo")
    slices.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    text = "the difference of two zoos, or of models of them, out of fold, with a paired bootstrap interval"
    compare = commands.add_parser("compare", help=text, description=text, epilog=COMPARE_EXAMPLE, formatter_class=raw)
    compare.add_argument("a", type=Path, metavar="A", help="a manifest")
    compare.add_argument("b", type=Path, metavar="B", help="a manifest, may be the same")
    compare.add_argument("--train", type=Path, required=True, metavar="CSV", help="train.csv: the true labels")
    compare.add_argument("--models-a", nargs="+", default=[], metavar="MODEL", help="only these of A (its blend)")
    compare.add_argument("--models-b", nargs="+", default=[], metavar="MODEL", help="only these of B (its blend)")
    compare.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples (0)")


def run_fit(given: argparse.Namespace) -> None:
    """Train as the options say."""
    from training.data.material import FitSettings
    from training.fit.run import fit

    fit(
        FitSettings(
            recipe=given.recipe,
            data=given.data,
            out=given.out,
            manifest=given.manifest,
            folds=given.folds,
            fold=given.fold,
            limit=given.limit,
            resume=given.resume,
            allow_missing=given.allow_missing,
            workers=given.workers,
            save_seconds=60 * given.save_minutes,
            mixed_precision=given.mixed_precision,
        )
    )


def run_oof(given: argparse.Namespace) -> None:
    """Predict as the options say."""
    from training.fit.predict_again import OofSettings, predict_zoo

    predict_zoo(
        OofSettings(
            manifest=given.manifest,
            data=given.data,
            names=given.models,
            folds=given.folds,
            limit=given.limit,
            allow_missing=given.allow_missing,
            workers=given.workers,
        )
    )


def run_explore(given: argparse.Namespace) -> None:
    """Write the page."""
    from training.pages.explore import explore

    explore(given.data, given.out, given.images)


def run_explain(given: argparse.Namespace) -> None:
    """Write the overlays."""
    from training.pages.explain import explain

    explain(given.manifest, given.images, given.ids, given.out, given.models, given.train)


def run_slices(given: argparse.Namespace) -> None:
    """Print the figures."""
    from training.pages.slices import print_slices

    print_slices(given.train, given.images, given.manifest, given.json)


def run_compare(given: argparse.Namespace) -> None:
    """Print the difference."""
    from training.pages.compare import compare_zoos

    compare_zoos(given.train, given.a, given.b, given.models_a, given.models_b, given.seed)


RUNS = {
    "fit": run_fit,
    "oof": run_oof,
    "explore": run_explore,
    "explain": run_explain,
    "slices": run_slices,
    "compare": run_compare,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0 when its files are written, 1 after an error, told in one line."""
    given = build_parser().parse_args(arguments)
    try:
        RUNS[given.command](given)
    except VitrineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
