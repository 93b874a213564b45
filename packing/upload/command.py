"""build_kernel.py upload."""

import argparse
from pathlib import Path

from inference.__main__ import add_attached
from zoo.commands import Command, read_duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the bundle and the limits of waiting."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the folder that `pack` wrote")
    parser.add_argument("--wait", action="store_true", help="wait until the notebook ends, and download its results")
    parser.add_argument("--print", action="store_true", help="print the commands without running them")
    parser.add_argument(
        "--out", type=Path, default=Path("build/upload"), metavar="DIR", help="folder of the results (build/upload)"
    )
    parser.add_argument(
        "--ready-limit", type=read_duration, default=1800.0, metavar="TIME", help="longest wait for the dataset (30m)"
    )
    parser.add_argument(
        "--run-limit", type=read_duration, default=43200.0, metavar="TIME", help="longest wait for the notebook (12h)"
    )
    parser.add_argument(
        "--pause", type=read_duration, default=10.0, metavar="TIME", help="time between two status requests (10s)"
    )
    add_attached(parser)


def run(arguments: argparse.Namespace) -> None:
    """Upload the dataset if Kaggle does not have it, push the notebook, and with --wait follow its run."""
    from packing.upload.upload import describe_upload, follow_kernel, prepare_upload, push_kernel, upload_dataset

    limits = {"ready_limit": arguments.ready_limit, "run_limit": arguments.run_limit, "pause": arguments.pause}
    prepared = prepare_upload(arguments.bundle, arguments.attached, **limits)
    if arguments.print:
        print(describe_upload(prepared, arguments.wait, arguments.out))
        return
    if not upload_dataset(prepared):
        print(f"{prepared.dataset_id}: Kaggle already has this bundle; upload skipped")
    pushed = push_kernel(prepared)
    print(follow_kernel(prepared, pushed, arguments.out) if arguments.wait else f"{pushed}: pushed, now running")


UPLOAD = Command(
    "upload",
    "upload a bundle with Kaggle's own client and run its notebook",
    "build/bundle --wait",
    add_arguments,
    run,
)
