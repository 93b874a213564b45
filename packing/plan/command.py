"""build_kernel.py plan."""

import argparse
from pathlib import Path

from zoo.commands import Command, add_manifest, read_duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the accelerator, the number of images and the time limit."""
    add_manifest(parser)
    parser.add_argument("--accelerator", default="T4x2", metavar="NAME", help="T4x2, P100, L4 or CPU (T4x2)")
    parser.add_argument("--images", type=int, metavar="N", help="number of test images (`runtime.images`)")
    parser.add_argument("--time-limit", type=read_duration, metavar="TIME", help="such as 9h or 90m (the manifest's)")
    parser.add_argument("--precision", metavar="NAME", help="fp32 or fp16 (the accelerator's fastest)")
    parser.add_argument(
        "--from",
        type=Path,
        dest="log",
        metavar="JSON",
        help="run_log.json of an earlier run, whose measured rates replace the estimates",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/plan.png"), metavar="PNG", help="the chart (build/plan.png)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the table and draw the chart."""
    from packing.accelerators import find_accelerator
    from packing.plan.chart import draw_plan
    from packing.plan.run_plan import describe_plan, make_plan

    accelerator = find_accelerator(arguments.accelerator)
    made = make_plan(
        arguments.manifest, accelerator, arguments.images, arguments.time_limit, arguments.precision, arguments.log
    )
    draw_plan(made, arguments.out)
    if accelerator.notice:
        print(f"note: {accelerator.notice}")
    print(f"{describe_plan(made)}\n{arguments.out}")


PLAN = Command(
    "plan",
    "estimate the run time on an accelerator, and what to drop if it is too long",
    "--accelerator T4x2 --images 38801 --time-limit 9h",
    add_arguments,
    run,
)
