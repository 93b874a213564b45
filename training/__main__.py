"""The command line of training: python -m training fit, python -m training decide."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.errors import VitrineError
from inference.manifest import MANIFEST_NAME, Resize

FIT_EXAMPLE = """example:
  python -m training fit --data ../imet-2019-fgvc6 --architecture legacy_seresnext50_32x4d --image-size 320 \\
      --group culture --out zoo --precision fp16
"""
DECIDE_EXAMPLE = f"""example:
  python -m training decide --train ../imet-2019-fgvc6/train.csv --manifest {MANIFEST_NAME}
"""


def build_parser() -> argparse.ArgumentParser:
    """The subcommands and their options."""
    parser = argparse.ArgumentParser(prog="python -m training", description="From images to a zoo and its thresholds.")
    commands = parser.add_subparsers(dest="command", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    text = "train a network on every fold but one; write it and its predictions of that one"
    fit = commands.add_parser("fit", help=text, description=text, epilog=FIT_EXAMPLE, formatter_class=raw)
    fit.add_argument("--data", type=Path, required=True, help="folder of labels.csv, train.csv and train/ID.png")
    fit.add_argument("--architecture", required=True, help="a timm name")
    fit.add_argument("--image-size", type=int, required=True, metavar="N", help="side of the square it looks at, px")
    fit.add_argument("--group", required=True, help="all, or the group of labels to learn: culture, tag")
    fit.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    fit.add_argument("--name", help="their name (ARCHITECTURE_SIZE_GROUP_fFOLD)")
    fit.add_argument("--resize", choices=("squash", "crop"), default="squash", help="how an image becomes a square")
    fit.add_argument("--crop-percentage", type=float, default=1.0, metavar="P", help="resize to N / P first (1.0)")
    fit.add_argument("--folds", type=int, default=5, metavar="N", help="parts to split train.csv into (5)")
    fit.add_argument("--fold", type=int, default=0, metavar="K", help="the part to hold out, from 0 (0)")
    fit.add_argument("--epochs", type=int, default=10, metavar="N", help="times to see each image (10)")
    fit.add_argument("--batch-size", type=int, default=64, metavar="N", help="images a step (64)")
    fit.add_argument("--learning-rate", type=float, default=4e-3, metavar="R", help="highest of the cycle (0.004)")
    fit.add_argument("--smallest-crop", type=float, default=0.6, metavar="P", help="least area that is shown (0.6)")
    fit.add_argument("--limit", type=int, metavar="N", help="use the first N rows of train.csv only")
    fit.add_argument("--seed", type=int, default=0, metavar="N", help="of folds, weights, order and crops (0)")
    fit.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="of the weights in the file (fp32)")
    text = "fit thresholds and numbers of labels to the out-of-fold predictions of the manifest's models"
    decide = commands.add_parser("decide", help=text, description=text, epilog=DECIDE_EXAMPLE, formatter_class=raw)
    decide.add_argument("--train", type=Path, required=True, metavar="CSV", help="train.csv: the true labels")
    decide.add_argument(
        "--manifest", type=Path, default=Path(MANIFEST_NAME), help=f"the manifest to read and write ({MANIFEST_NAME})"
    )
    return parser


def run_fit(given: argparse.Namespace) -> None:
    """Train as the options say."""
    from training.fit import FitSettings, fit
    from training.loop import LoopSettings

    fit(
        FitSettings(
            data=given.data,
            architecture=given.architecture,
            image_size=given.image_size,
            group=given.group,
            out=given.out,
            name=given.name,
            resize=Resize(given.resize, given.crop_percentage),
            folds=given.folds,
            fold=given.fold,
            limit=given.limit,
            precision=given.precision,
            loop=LoopSettings(given.epochs, given.batch_size, given.learning_rate, given.smallest_crop, given.seed),
        )
    )


def run_decide(given: argparse.Namespace) -> None:
    """Fit the decision as the options say."""
    from training.decide import decide_manifest

    decide_manifest(given.train, given.manifest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0 when its files are written, 1 after an error, told in one line."""
    given = build_parser().parse_args(arguments)
    try:
        {"fit": run_fit, "decide": run_decide}[given.command](given)
    except VitrineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
