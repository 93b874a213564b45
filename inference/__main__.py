"""Command line of the bundle: python inference.pyz."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from inference import __version__
from inference.basics.errors import VitrineError

EXAMPLE = """A run saves its predictions in OUT.work and removes that folder at the end. To continue a killed run, start
the same command again; it ends with the same submission.

exit codes: 0 complete; 3 valid but degraded, see the lines with DEGRADED or run_log.json; 1 failed

example:
  python inference.pyz --bundle . --images ../imet-2019-fgvc6/test --sample ../imet-2019-fgvc6/sample_submission.csv \\
      --out submission.csv --time-limit 32400
"""
# Exit codes; an error is 1, argparse uses 2.
COMPLETE, DEGRADED = 0, 3


def build_parser() -> argparse.ArgumentParser:
    """Return the parser for the options of one run."""
    parser = argparse.ArgumentParser(
        prog="inference.pyz",
        description="Run a bundle's models over a folder of images; write submission.csv and, beside it, run_log.json.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of weights_manifest.json and the ONNX files")
    parser.add_argument("--images", type=Path, required=True, help="folder of the test images; file names are the ids")
    parser.add_argument("--sample", type=Path, required=True, help="sample_submission.csv: image ids in their order")
    parser.add_argument("--out", type=Path, required=True, help="submission to write")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="time limit (default: the manifest's)")
    parser.add_argument(
        "--started-at",
        type=float,
        default=time.time(),
        metavar="SECONDS",
        help="moment from which the time limit counts, in seconds since 1970 (default: now)",
    )
    parser.add_argument("--fresh", action="store_true", help="start over instead of continuing a killed run")
    parser.add_argument("--strict", action="store_true", help="fail instead of writing a degraded submission")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="for all models that have it within the manifest's limit of F2 loss (default: the faster one)",
    )
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="also write each model's probabilities as .npy")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit code: 0 for a complete submission, 3 for a degraded one, 1 after an error (one line)."""
    given = build_parser().parse_args(arguments)
    try:
        # Imported here so that --help does not wait for numpy and ONNX Runtime.
        from inference.run.predict import run
        from inference.run.state import Request
    except (ImportError, MemoryError) as error:
        cause: BaseException = error
        while cause.__cause__:  # numpy's own error is long; its last cause is the actual one
            cause = cause.__cause__
        reason = " ".join(str(cause).split()) or type(cause).__name__
        print(f"error: cannot load numpy, Pillow and onnxruntime: {reason}", file=sys.stderr)
        return 1
    try:
        complete = run(Request(**vars(given)))
    except VitrineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"error: out of memory ({str(error) or 'no details given'})", file=sys.stderr)
        return 1
    return COMPLETE if complete else DEGRADED


if __name__ == "__main__":
    sys.exit(main())
