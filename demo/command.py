"""Command `build_kernel.py demo`: every step on the built-in demo dataset, with the commands that a user would type."""

import argparse
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from inference.basics.files import make_folder
from inference.manifest.file import MANIFEST_NAME
from zoo.commands import Command

DemoTask = Literal["multilabel", "multiclass"]
Steps = list[list[object]]

MANIFEST = Path(__file__).parents[1] / MANIFEST_NAME
STYLES = Path(__file__).parent / "zoo_multiclass"
# Name, architecture, and image size in px.
STYLE_NETWORKS = (("style_f0", "test_efficientnet", 64), ("pattern_f0", "test_byobnet", 48))
OUT = "build/demo"
TEST_IMAGES = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the competition and the output folder."""
    parser.add_argument(
        "--task",
        choices=get_args(DemoTask),
        default="multilabel",
        help="draw the dataset as iMet 2019 (multilabel), or as a competition with one of ten classes per image",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"output folder ({OUT}, or {OUT}-multiclass)")


def make_command(run_step: Callable[[Sequence[str]], None]) -> Command:
    """Return the command `demo`; `run_step` runs build_kernel.py with the given arguments."""

    def run(arguments: argparse.Namespace) -> None:
        task: DemoTask = arguments.task
        walk_demo(arguments.out or Path(OUT if task == "multilabel" else f"{OUT}-{task}"), task, run_step)

    purpose = "run every step on the built-in demo dataset and print its scores"
    return Command("demo", purpose, f"--out {OUT}", add_arguments, run)


def walk_demo(out: Path, task: DemoTask, run_step: Callable[[Sequence[str]], None]) -> None:
    """Write the dataset; export, pack and run a demo zoo; print its scores. Raises VitrineError."""
    from demo.museum import write_museum
    from demo.report import print_report

    museum = out / "museum"
    write_museum(museum, 0, TEST_IMAGES, task)
    manifest, images, steps = Path(os.path.relpath(MANIFEST)), museum / "test", Steps()
    if task == "multiclass":
        zoo = out / "zoo"
        copy_networks(zoo)
        manifest, images, steps = zoo / MANIFEST_NAME, museum / "test_images", list_zoo_steps(museum, zoo)
    for step in [*steps, *list_bundle_steps(manifest, museum, images, out)]:
        words = [str(word) for word in step]
        print(f"$ python build_kernel.py {shlex.join(words)}", flush=True)
        run_step(words)
    print_report(manifest, museum, out)


def copy_networks(zoo: Path) -> None:
    """Copy the networks of the museum's styles and their out-of-fold predictions into a new zoo."""
    make_folder(zoo)
    for path in sorted(STYLES.iterdir()):
        shutil.copyfile(path, zoo / path.name)


def list_zoo_steps(museum: Path, zoo: Path) -> Steps:
    """Return the commands from the museum's folder to a zoo that declares its networks."""
    manifest = zoo / MANIFEST_NAME
    init: list[object] = ["init", museum, "--out", zoo, "--competition", "museum-styles", "--metric", "accuracy"]
    steps: Steps = [[*init, "--force"]]
    for name, network, size in STYLE_NETWORKS:
        oof = ["--fold", 0, "--oof", zoo / f"{name}.oof.npy"]
        network_words = ["--architecture", network, "--image-size", size]
        steps.append(["add", zoo / f"{name}.safetensors", "--manifest", manifest, *network_words, *oof])
    return steps


def list_bundle_steps(manifest: Path, museum: Path, images: Path, out: Path) -> Steps:
    """Return the commands from a zoo to the submission of its bundle; `images`: folder of the test images."""
    onnx, bundle = out / "onnx", out / "bundle"
    names = ["--slug", "museum-bundle", "--title", "Museum bundle"]
    return [
        ["export", "--manifest", manifest, "--images", images, "--out", onnx, "--precisions", "fp32"],
        ["pack", "--manifest", manifest, "--onnx", onnx, "--out", bundle, *names],
        ["dry-run", "--bundle", bundle / "dataset", "--competition", museum, "--out", out, "--predictions"],
    ]
