"""Command `build_kernel.py demo`: every step on the built-in demo dataset, with the commands that a user would type."""

import argparse
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from inference.manifest.file import MANIFEST_NAME
from zoo.commands import Command

MANIFEST = Path(__file__).parents[1] / MANIFEST_NAME
TEST_IMAGES = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option for the output folder."""
    parser.add_argument(
        "--out", type=Path, default=Path("build/demo"), metavar="DIR", help="output folder (build/demo)"
    )


def make_command(run_step: Callable[[Sequence[str]], None]) -> Command:
    """Return the command `demo`; `run_step` runs build_kernel.py with the given arguments."""

    def run(arguments: argparse.Namespace) -> None:
        walk_demo(arguments.out, run_step)

    purpose = "run every step on the built-in demo dataset and print its F2"
    return Command("demo", purpose, "--out build/demo", add_arguments, run)


def walk_demo(out: Path, run_step: Callable[[Sequence[str]], None]) -> None:
    """Write the dataset; export, pack and run the demo zoo; print the F2. Raises VitrineError."""
    from demo.museum import write_museum
    from demo.report import print_report

    manifest = os.path.relpath(MANIFEST)
    museum, onnx, bundle = out / "museum", out / "onnx", out / "bundle"
    write_museum(museum, train_images=0, test_images=TEST_IMAGES)
    images, sample = museum / "test", museum / "sample_submission.csv"
    inputs = ["--images", images, "--sample", sample]
    names = ["--slug", "museum-bundle", "--title", "Museum bundle"]
    for step in (
        ["export", "--manifest", manifest, "--images", images, "--out", onnx, "--precisions", "fp32"],
        ["pack", "--manifest", manifest, "--onnx", onnx, "--out", bundle, *names],
        ["dry-run", "--bundle", bundle / "dataset", *inputs, "--out", out, "--predictions"],
    ):
        words = [str(word) for word in step]
        print(f"$ python build_kernel.py {shlex.join(words)}", flush=True)
        run_step(words)
    print_report(MANIFEST, museum, out)
