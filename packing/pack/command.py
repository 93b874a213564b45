"""build_kernel.py pack."""

import argparse
import os
from pathlib import Path

from inference.__main__ import Attach
from zoo.commands import Command, add_manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the names on Kaggle, the accelerator and the wheels."""
    add_manifest(parser)
    parser.add_argument("--onnx", type=Path, default=Path("build/onnx"), metavar="DIR", help="the export (build/onnx)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/bundle"), metavar="DIR", help="output folder (build/bundle)"
    )
    owner = os.environ.get("KAGGLE_USERNAME", "your-kaggle-name")
    parser.add_argument("--owner", default=owner, help=f"your Kaggle user name (KAGGLE_USERNAME, now {owner})")
    parser.add_argument("--slug", default="vitrine-bundle", help="the dataset's name in its URL (vitrine-bundle)")
    parser.add_argument("--title", default="Vitrine bundle", help="the dataset's title (Vitrine bundle)")
    parser.add_argument("--competition", metavar="NAME", help="the competition's name in its URL (`task.competition`)")
    parser.add_argument("--accelerator", default="T4x2", metavar="NAME", help="T4x2, P100, L4 or CPU (T4x2)")
    parser.add_argument(
        "--wheels",
        nargs="?",
        const="onnxruntime",
        choices=("onnxruntime", "cudnn"),
        help="include onnxruntime-gpu, missing in Kaggle's image; 'cudnn' also includes the last cuDNN for a P100",
    )
    parser.add_argument(
        "--without-stackers",
        action="store_true",
        help="pack the blend alone: without the stackers, and although the zoo changed since `ensemble`",
    )
    parser.add_argument(
        "--wheels-cache",
        type=Path,
        default=Path("build/wheels"),
        metavar="DIR",
        help="folder of downloaded wheels (build/wheels)",
    )
    parser.add_argument(
        "--attach",
        action=Attach,
        default={},
        metavar="OWNER/SLUG=DIR",
        help="a dataset on Kaggle, and a local copy of it: its model files are not copied, and the notebook reads them "
        "there; repeatable",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the bundle and print its two folders."""
    from inference.manifest.file import read_manifest
    from packing.accelerators import find_accelerator
    from packing.pack.fetch_wheels import fetch_wheels
    from packing.pack.metadata import Names
    from packing.pack.write_bundle import pack

    accelerator = find_accelerator(arguments.accelerator)
    competition = arguments.competition or read_manifest(arguments.manifest).task.competition
    names = Names(arguments.owner, arguments.slug, arguments.title, competition)
    wheels = fetch_wheels(arguments.wheels, arguments.wheels_cache) if arguments.wheels else ()
    packed = pack(
        arguments.manifest,
        arguments.onnx,
        arguments.out,
        names,
        accelerator,
        wheels,
        without_stackers=arguments.without_stackers,
        attach=arguments.attach,
    )
    if accelerator.notice:
        print(f"note: {accelerator.notice}")
    if not wheels:
        print("note: Kaggle's image has no onnxruntime; `pack --wheels` includes it")
    for dataset in arguments.attach:
        print(f"note: the notebook reads {dataset} too: every member of the team needs the right to read it")
    print(f"{packed.dataset}  {packed.size / 1e6:.1f} MB  {names.dataset_id}")
    print(f"{packed.kernel}  {names.kernel_title}")


PACK = Command(
    "pack",
    "write the Kaggle dataset and the kernel notebook",
    "--owner my-name --slug imet-bundle --title 'iMet bundle'",
    add_arguments,
    run,
)
