"""The commands `python -m training` explore, explain, slices and compare; none changes data or models."""

import argparse
from pathlib import Path

from zoo.commands import Command

IMAGES = "folder of images, ID.png; the competition's folder if train.csv names their files"


def add_explore_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of explore."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the competition's folder: images and tables"
    )
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="a zoo's manifest, for its task and tables")
    parser.add_argument(
        "--out", type=Path, default=Path("explore.html"), metavar="FILE", help="output page (explore.html)"
    )
    parser.add_argument("--images", type=int, metavar="N", help="open only N images of each folder (all)")


def add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of explain."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="image ids")
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="the zoo's manifest")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=IMAGES)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="MODEL", help="models to explain (per group, the first of the blend)"
    )
    parser.add_argument("--train", type=Path, metavar="CSV", help="train.csv, to show the truth")


def add_slices_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of slices."""
    parser.add_argument("--train", type=Path, required=True, metavar="CSV", help="train.csv: the truth")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=IMAGES)
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="the zoo's manifest")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this JSON file")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="also write a page with the confusion matrix, or a scatter of numbers"
    )


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of compare."""
    parser.add_argument("a", type=Path, metavar="A", help="a manifest")
    parser.add_argument("b", type=Path, metavar="B", help="a manifest, may be the same as A")
    parser.add_argument("--train", type=Path, required=True, metavar="CSV", help="train.csv: the truth")
    parser.add_argument("--models-a", nargs="+", default=[], metavar="MODEL", help="use only these models of A (blend)")
    parser.add_argument("--models-b", nargs="+", default=[], metavar="MODEL", help="use only these models of B (blend)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the bootstrap (0)")


def run_explore(arguments: argparse.Namespace) -> None:
    """Run explore."""
    from training.pages.explore import explore

    explore(arguments.data, arguments.out, arguments.images, arguments.manifest)


def run_explain(arguments: argparse.Namespace) -> None:
    """Run explain."""
    from training.pages.explain import explain

    explain(arguments.manifest, arguments.images, arguments.ids, arguments.out, arguments.models, arguments.train)


def run_slices(arguments: argparse.Namespace) -> None:
    """Run slices."""
    from training.pages.slices.measure import print_slices

    print_slices(arguments.train, arguments.images, arguments.manifest, arguments.json, arguments.page)


def run_compare(arguments: argparse.Namespace) -> None:
    """Run compare."""
    from training.pages.compare import compare_zoos

    compare_zoos(arguments.train, arguments.a, arguments.b, arguments.models_a, arguments.models_b, arguments.seed)


EXPLORE = Command(
    "explore",
    "write a page of plots about a training folder: pixels, sizes, labels",
    "--data ../imet-2019-fgvc6 --images 5000",
    add_explore_arguments,
    run_explore,
)
EXPLAIN = Command(
    "explain",
    "show where models look: write one PNG of Grad-CAM overlays per image",
    "--manifest zoo/weights_manifest.json --images ../imet-2019-fgvc6/train --out overlays \\\n"
    "      --train ../imet-2019-fgvc6/train.csv 1000483014d91860 1000fe2e667721fe",
    add_explain_arguments,
    run_explain,
)
SLICES = Command(
    "slices",
    "print the out-of-fold metric of each model and of the blend, by image shape and label frequency",
    "--manifest zoo/weights_manifest.json --train ../imet-2019-fgvc6/train.csv \\\n"
    "      --images ../imet-2019-fgvc6/train",
    add_slices_arguments,
    run_slices,
)
COMPARE = Command(
    "compare",
    "compare the out-of-fold metric of two zoos, or of some of their models, with a paired bootstrap interval",
    "--train ../imet-2019-fgvc6/train.csv zoo/weights_manifest.json zoo/weights_manifest.json \\\n"
    "      --models-a resnet34_224_all --models-b resnet34_350_all",
    add_compare_arguments,
    run_compare,
)
