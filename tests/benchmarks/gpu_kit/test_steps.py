"""The GPU steps keep up with the project: what they import and name exists, and one runs on the CPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu_kit import runs, sessions
from benchmarks.gpu_kit.steps import STEPS
from tests.conftest import ROOT

ENVIRONMENT = os.environ | {"GPU_CPU_TRIAL": "1"}


def test_a_copy_outside_the_checkout_runs_the_check_on_the_cpu(tmp_path: Path) -> None:
    copy = shutil.copy(ROOT / "benchmarks" / "gpu_kit" / "steps.py", tmp_path / "steps.py")
    finished = subprocess.run(
        [sys.executable, copy, "check"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.endswith("ok   both give the same output\nall checks passed\n")


def test_an_unknown_step_is_refused_with_the_names_of_all(tmp_path: Path) -> None:
    steps = ROOT / "benchmarks" / "gpu_kit" / "steps.py"
    finished = subprocess.run(
        [sys.executable, steps, "fly"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stderr == "usage: steps.py check|smoke|kernel|pytest|train|export|gpu|options\n"


def test_every_step_is_a_function_of_its_module() -> None:
    modules = {"runs": runs, "sessions": sessions}
    assert all(callable(getattr(modules[module], step)) for step, module in STEPS.items())


def test_the_tests_that_a_gpu_runs_exist() -> None:
    assert [name for name in runs.TESTS + runs.GPU_TESTS if not (ROOT / "tests" / name).is_file()] == []
