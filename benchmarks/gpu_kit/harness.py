"""What the GPU steps share: run a command, judge a result, keep figures."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRIAL = os.environ.get("GPU_CPU_TRIAL") == "1"
WORK = Path("build/gpu").resolve()
RESULTS = Path(os.environ.get("GPU_RESULTS", "build/gpu/results")).resolve()
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
EXPECTED = CPU if TRIAL else CUDA
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
LIMITS = {"fp32": 2e-3, "fp16": 2e-2}
"""Largest difference of a probability between GPU and CPU; in fp32, convolutions run in TF32."""

failures: list[str] = []


def judge(good: bool, what: str) -> None:
    """Print a finding; a bad one is a failure of the step."""
    print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
    if not good:
        failures.append(what)


def run(*command: object, env: dict[str, str] | None = None, expected: Sequence[int] = (0,)) -> str:
    """Run this Python with the arguments, print and return its output; an exit code not `expected` is a failure."""
    words = [sys.executable, *map(str, command)]
    print(f"$ {' '.join(words[1:])}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(words, env=os.environ | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:  # printed at once, because a time limit may kill this step
        lines.append(line.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2])
        print(lines[-1], flush=True)
    code = process.wait()
    print(f"[exit code {code}, {time.monotonic() - started:.1f} s]", flush=True)
    if code not in expected:
        judge(False, f"{' '.join(words[1:4])}: exit code {code}; wanted {' or '.join(map(str, expected))}")
    return "\n".join(lines)


def kill_when(command: Sequence[object], is_ready: Callable[[], bool], what: str) -> None:
    """Start this Python with the arguments, and kill it with -9 as soon as `is_ready`."""
    print(f"$ {' '.join(map(str, command))}   (will be killed)", flush=True)
    words = [sys.executable, *map(str, command)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + (900 if TRIAL else 90)
    while process.poll() is None and not is_ready() and time.monotonic() < deadline:
        time.sleep(0.02)
    judge(process.poll() is None and is_ready(), what)
    process.send_signal(signal.SIGKILL)
    process.wait()


def keep(name: str, figures: Any) -> None:
    """Write figures as JSON."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def draw_noise(images: int, size: int) -> NDArray[np.uint8]:
    """Random images (images, size, size, 3)."""
    return np.random.default_rng(0).integers(0, 256, (images, size, size, 3), dtype=np.uint8)


def empty_folder(path: Path) -> Path:
    """A folder without anything that an earlier run left in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
