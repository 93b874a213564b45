"""build_kernel.py init."""

import argparse
from pathlib import Path
from typing import get_args

from inference.manifest.task import Layout, TaskType
from zoo.commands import Command, read_duration, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, what tables cannot say, and options that overrule what is found."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the competition's data, unpacked")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new zoo")
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="f2, f1, f_beta=B, micro_f1, macro_f1, accuracy, kappa, map@K, roc_auc, log_loss, kl_divergence or rmse",
    )
    parser.add_argument("--competition", metavar="SLUG", help="its name in its URL (the name of FOLDER)")
    parser.add_argument(
        "--time-limit", type=read_duration, metavar="TIME", help="of the kernel, such as 9h or 90m (9h)"
    )
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="number of folds (5)")
    parser.add_argument("--group-by", metavar="COLUMN", help="images with the same cell there stay in one fold")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the split into folds (0)")
    parser.add_argument("--force", action="store_true", help="replace a zoo in DIR; its models are no longer declared")
    found = parser.add_argument_group("options that overrule what is found in FOLDER")
    found.add_argument("--train", metavar="FILE", help="table of the training images: CSV, or JSON in COCO's form")
    found.add_argument("--sample", metavar="FILE", help="sample submission")
    found.add_argument("--id-column", metavar="COLUMN", help="column of the ids in the sample submission")
    found.add_argument("--train-id-column", metavar="COLUMN", help="column of the image ids in the training table")
    found.add_argument(
        "--label-column",
        action="append",
        default=[],
        dest="label_columns",
        metavar="COLUMN",
        help="column of the labels; repeat it for a column per label",
    )
    found.add_argument("--type", choices=get_args(TaskType), help="type of the labels")
    found.add_argument("--layout", choices=get_args(Layout), help="layout of the submission")
    found.add_argument("--top-k", type=int, metavar="K", help="number of labels per image in a submission, best first")
    found.add_argument("--separator", metavar="TEXT", help="between the labels of a cell; none: a cell is one label")
    found.add_argument("--positive", metavar="CLASS", help="of two classes the one whose probability is asked")
    found.add_argument("--images", metavar="PATTERN", help="place of a test image, such as test_images/{id}")
    found.add_argument(
        "--train-images", metavar="PATTERN", help="place of a training image, such as train/{label}/{id}"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the zoo; print what was understood, also before an error."""
    from packing.init.init_zoo import Report, init_zoo
    from packing.init.settings import Settings

    arguments.label_columns = tuple(arguments.label_columns)
    report = Report()
    try:
        init_zoo(read_settings(Settings, arguments), report)
    finally:
        for line in report.lines():
            print(line)
    print(f"wrote labels.csv, train.csv, folds.csv and weights_manifest.json to {arguments.out}")


INIT = Command(
    "init",
    "read a competition's folder and write the zoo's task, labels, train.csv and folds",
    "data/cassava --out zoo/cassava --metric accuracy --competition cassava-leaf-disease-classification",
    add_arguments,
    run,
)
