"""The command line of the bundle: python inference.pyz."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from inference import __version__
from inference.basics.errors import VitrineError

EXAMPLE = """Predictions are kept in OUT.work beside the submission while the run lasts: a run that was killed goes on
from there when it is started again, and ends with the same submission. A run that comes to its end removes the folder,
so the next one starts over.

exit codes: 0 complete; 3 valid, but something was left out, as the lines with DEGRADED and run_log.json say; 1 failed

example:
  python inference.pyz --bundle . --images ../imet-2019-fgvc6/test --sample ../imet-2019-fgvc6/sample_submission.csv \\
      --out submission.csv --time-limit 32400
"""
# Exit codes; 1 is an error, 2 argparse's.
COMPLETE, DEGRADED = 0, 3


def build_parser() -> argparse.ArgumentParser:
    """The arguments of one run."""
    parser = argparse.ArgumentParser(
        prog="inference.pyz",
        description="Run a bundle's models over a folder of images; write submission.csv and, beside it, run_log.json.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of weights_manifest.json and the ONNX files")
    parser.add_argument("--images", type=Path, required=True, help="folder of the test images, named by their id")
    parser.add_argument(
        "--sample", type=Path, required=True, help="sample_submission.csv: which images, in which order"
    )
    parser.add_argument("--out", type=Path, required=True, help="the submission to write")
    parser.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="done before, with a valid file (manifest's)"
    )
    parser.add_argument(
        "--started-at",
        type=float,
        default=time.time(),
        metavar="SECONDS",
        help="when the limit began to count, in seconds since 1970 (now)",
    )
    parser.add_argument("--fresh", action="store_true", help="do not continue a run that was killed: start over")
    parser.add_argument(
        "--strict", action="store_true", help="end with an error where the submission would lack something"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="of all models that have it within the manifest's limit (whichever is measured faster)",
    )
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="keep each model's probabilities here as .npy")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 when a checked submission is written, 3 when it lacks something, 1 after an error, told in one line."""
    given = build_parser().parse_args(arguments)
    try:
        # Here and not above, so that --help does not wait for numpy and ONNX Runtime.
        from inference.run.predict import Request, run
    except (ImportError, MemoryError) as error:
        cause: BaseException = error
        while cause.__cause__:  # numpy tells at length what may be wrong, and last what is
            cause = cause.__cause__
        told = " ".join(str(cause).split()) or type(cause).__name__
        print(f"error: numpy, Pillow and onnxruntime are needed, and cannot be loaded: {told}", file=sys.stderr)
        return 1
    try:
        complete = run(Request(**vars(given)))
    except VitrineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"error: memory does not suffice: {str(error) or 'no more is told'}", file=sys.stderr)
        return 1
    return COMPLETE if complete else DEGRADED


if __name__ == "__main__":
    sys.exit(main())
