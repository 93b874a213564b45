"""build_kernel.py export."""

import argparse
from pathlib import Path

from zoo.commands import Command, add_manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the precisions and the real images to measure them on."""
    add_manifest(parser)
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="at least 16 real images; int8 is calibrated on them"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/onnx"), metavar="DIR", help="output folder (build/onnx)"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("fp32", "fp16", "int8"),
        default=["fp32", "fp16"],
        help="fp32 is always exported; int8 is for kernels without a GPU (fp32 fp16)",
    )
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="CSV",
        help="train.csv with the truth of --images, to measure the loss (default: against the answers of fp32)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Export every model and print one line per file when it is written."""
    from tqdm import tqdm

    from packing.export.export_zoo import export_zoo

    export_zoo(arguments.manifest, arguments.out, arguments.images, arguments.precisions, arguments.truth, tqdm.write)


EXPORT = Command(
    "export",
    "export every model to ONNX and compare each file with torch",
    "--images data/test",
    add_arguments,
    run,
)
