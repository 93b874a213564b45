"""The project's checks on a real GPU, one step per call, mostly by its own commands.

python benchmarks/gpu_kit/steps.py STEP     in the root of the checkout
GPU_CPU_TRIAL=1                             the same in a tiny form, on the CPU
GPU_RESULTS=DIR                             where each step writes its figures as JSON (build/gpu/results)

Exit code 1: a check failed; the lines with FAIL say which.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))  # this file may run from a copy outside the checkout

from benchmarks.gpu_kit import harness

STEPS = {
    "check": "sessions",
    "smoke": "sessions",
    "kernel": "runs",
    "pytest": "runs",
    "train": "runs",
    "export": "sessions",
    "gpu": "sessions",
    "options": "sessions",
}
"""The module of each step."""


def main() -> int:
    """Run one step; 1 where a check failed."""
    if len(sys.argv) != 2 or sys.argv[1] not in STEPS:
        print(f"usage: steps.py {'|'.join(STEPS)}", file=sys.stderr)
        return 2
    harness.WORK.mkdir(parents=True, exist_ok=True)
    step = sys.argv[1]
    getattr(importlib.import_module(f"benchmarks.gpu_kit.{STEPS[step]}"), step)()
    print(f"{len(harness.failures)} checks failed" if harness.failures else "all checks passed")
    return 1 if harness.failures else 0


if __name__ == "__main__":
    sys.exit(main())
