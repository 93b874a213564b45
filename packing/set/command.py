"""build_kernel.py set."""

import argparse

from zoo.commands import Command, add_manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the changes."""
    add_manifest(parser)
    parser.add_argument(
        "changes",
        nargs="+",
        metavar="KEY=VALUE",
        help="a key with dots, such as models[0].fold, and a value in JSON, text, or a time such as 4h",
    )


def run(arguments: argparse.Namespace) -> None:
    """Change the values and print the old and the new ones."""
    from packing.set.set import set_values

    for line in set_values(arguments.manifest, arguments.changes):
        print(f"{arguments.manifest}: {line}")


SET = Command(
    "set",
    "change values of the manifest, such as the time limit",
    "runtime.time_limit=4h task.metric.name=accuracy 'task.images.path=test_images/{id}'",
    add_arguments,
    run,
)
