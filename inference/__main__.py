"""Command line of the bundle: python inference.pyz."""

import argparse
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference import __version__
from inference.basics.errors import VitrineError
from inference.basics.run_log import drop_unsaid, say
from inference.manifest.values import is_dataset

EXAMPLE = """A run saves its predictions in OUT.work and removes that folder at the end. To continue a killed run, start
the same command again; it ends with the same submission.

exit codes: 0 complete; 3 valid but degraded, see the lines with DEGRADED or run_log.json; 1 failed;
130 stopped by Ctrl-C

example:
  python inference.pyz --bundle . --competition ../imet-2019-fgvc6 --out submission.csv --time-limit 32400
"""
# Exit codes; argparse uses 2.
COMPLETE, FAILED, DEGRADED, INTERRUPTED = 0, 1, 3, 130


def read_seconds(text: str) -> float:
    """Return a finite number of seconds above 0; a type for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:  # also refuses NaN
        raise argparse.ArgumentTypeError(f"found {text!r}; wanted seconds, a finite number above 0")
    return seconds


class Attach(argparse.Action):
    """Collect the values OWNER/SLUG=DIR of a repeated option into a mapping from dataset to folder."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, option: str | None = None
    ) -> None:
        """Add one value; end with an error of the parser for one of another form, or for a dataset given twice."""
        dataset, _, folder = value.partition("=")
        attached = getattr(namespace, self.dest)
        if not is_dataset(dataset) or not folder:
            parser.error(f"argument {option}: found {value!r}; wanted OWNER/SLUG=DIR")
        if dataset in attached:
            parser.error(f"argument {option}: found dataset {dataset} twice; wanted it once")
        setattr(namespace, self.dest, {**attached, dataset: Path(folder)})


def add_attached(parser: argparse.ArgumentParser) -> None:
    """Add --attached, which gives a mapping from dataset to folder."""
    parser.add_argument(
        "--attached",
        action=Attach,
        default={},
        metavar="OWNER/SLUG=DIR",
        help="folder of an attached dataset that has files of models; repeatable",
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser for the options of one run."""
    parser = argparse.ArgumentParser(
        prog="inference.pyz",
        description="Run a bundle's models over a folder of images; write submission.csv and, beside it, run_log.json.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of weights_manifest.json and the ONNX files")
    parser.add_argument("--out", type=Path, required=True, help="submission to write")
    parser.add_argument(
        "--competition", type=Path, help="the competition's folder; `task` of the manifest places the images in it"
    )
    parser.add_argument("--images", type=Path, help="folder of the test images, instead of the one in --competition")
    parser.add_argument("--sample", type=Path, help="sample submission, instead of the one in --competition")
    parser.add_argument(
        "--time-limit", type=read_seconds, metavar="SECONDS", help="time limit (default: the manifest's)"
    )
    parser.add_argument(
        "--started-at",
        type=read_seconds,
        metavar="SECONDS",
        help="moment from which the time limit counts, by Python's time.monotonic() (default: now)",
    )
    parser.add_argument("--fresh", action="store_true", help="start over instead of continuing a killed run")
    parser.add_argument("--strict", action="store_true", help="fail instead of writing a degraded submission")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="for all models that have it within the manifest's limit of loss (default: the faster one)",
    )
    parser.add_argument(
        "--low-memory",
        action="store_true",
        help="use one lane, one decoder and small batches: slower, needs the least memory",
    )
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="also write each model's scores as .npy")
    add_attached(parser)
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit code: 0 for a complete submission, 3 for a degraded one, 1 after an error (one line)."""
    try:
        hold_standard_files()
        complete = run_request(build_parser().parse_args(arguments))
        return COMPLETE if complete else DEGRADED
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends the process at once
        say(f"stopped by {str(error) or 'Ctrl-C'}; the same command continues it", sys.stderr)
        return INTERRUPTED
    except (VitrineError, OSError) as error:
        say(f"error: {error}", sys.stderr)
    except MemoryError as error:
        say(f"error: out of memory ({str(error) or 'no details given'})", sys.stderr)
    finally:
        drop_unsaid()
    return FAILED


def run_request(given: argparse.Namespace) -> bool:
    """Run with the given options; return False for a degraded submission. Raises VitrineError."""
    try:
        from inference.models.wheels import load_libraries

        # CUDA's libraries first: importing ONNX Runtime may load other versions.
        for library in load_libraries():
            say(f"warning: {library} is missing: all models run on the CPU", sys.stderr)
        # Imported here so that --help does not wait for numpy and ONNX Runtime.
        from inference.run.predict import run
        from inference.run.state import Request
    except KeyboardInterrupt:  # numpy's OpenBLAS sends it to its own process
        raise KeyboardInterrupt("Ctrl-C, or by OpenBLAS, which cannot start its threads") from None
    except (ImportError, MemoryError) as error:
        cause: BaseException = error
        while cause.__cause__:  # numpy's own error is long; its last cause is the actual one
            cause = cause.__cause__
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise VitrineError(f"cannot load numpy, Pillow and onnxruntime: {reason}") from error
    return run(Request(**vars(given)))


def hold_standard_files() -> None:
    """Open /dev/null as stdin, stdout and stderr where they are closed.

    The next file that is opened would get their number: what a library prints would be written into predictions.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
