"""Runs under kills, short time limits, slow models, full disks, little memory, and single odd images.

python -m benchmarks.endurance            all but the last, on the output of `make demo` in build/demo
python -m benchmarks.endurance --only single-images --odd-images DIR      each file of a folder as the only test image
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.endurance.faults import fill_the_disk, kill_at_random
from benchmarks.endurance.images import run_single_images, starve
from benchmarks.endurance.limits import shorten_the_limit, slow_down
from benchmarks.endurance.notebook import kill_notebooks
from benchmarks.endurance.runs import ROOT, Museum
from benchmarks.kernel import write_sample
from inference.task.ids import read_ids

KINDS: dict[str, Callable[[Museum, Path, float], None]] = {
    "kills": kill_at_random,
    "notebooks": kill_notebooks,
    "limits": shorten_the_limit,
    "slower": slow_down,
    "disk": fill_the_disk,
    "memory": starve,
}
SINGLE = "single-images"


def main(given: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.endurance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--demo", type=Path, default=ROOT / "build" / "demo", metavar="DIR", help="output of `make demo` (build/demo)"
    )
    parser.add_argument("--wait", type=float, default=0.02, metavar="SECONDS", help="delay per image and view (0.02)")
    parser.add_argument("--images", type=int, default=600, metavar="N", help="number of test images (600)")
    parser.add_argument("--only", choices=(*KINDS, SINGLE), help="run one of them")
    parser.add_argument("--odd-images", type=Path, metavar="DIR", help="folder of the single images")
    arguments = parser.parse_args(given)
    if arguments.only == SINGLE and not arguments.odd_images:
        parser.error(f"--only {SINGLE}: needs --odd-images DIR")
    demo = arguments.demo.resolve()
    ids = read_ids(demo / "museum" / "sample_submission.csv")[: arguments.images]
    with tempfile.TemporaryDirectory(prefix="endurance-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        museum = Museum(demo / "bundle" / "dataset", demo / "museum", write_sample(folder / "sample.csv", ids))
        for name, run in KINDS.items():
            if arguments.only in (None, name):
                run(museum, folder, arguments.wait)
        if arguments.only == SINGLE:
            run_single_images(museum, folder, arguments.odd_images.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
