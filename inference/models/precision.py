"""The choice of a model's precision: fp32, or one that is faster on its device and loses little.

fp16 may be faster on a GPU, int8 on a CPU. The manifest allows it if it loses at most `runtime.metric_loss`. A trial
on the model's first batch measures whether it is faster, and compares its output with that of fp32. Every stored chunk
records the choice, so that a resumed run keeps it and writes the same bytes; `--precision` chooses without a trial.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.manifest.model import Model
from inference.manifest.values import Precision
from inference.models.sessions import CPU, CUDA, ModelSession

RIVALS: Mapping[str, Precision] = {CUDA: "fp16", CPU: "int8"}  # by provider: the precision that may be faster than fp32
TRIALS = 2  # per session, after one to warm up
TRIAL_BATCHES = 2 * (1 + TRIALS)
FASTER = 0.95  # the rival is used if its time is below this share of fp32's
# Allowed difference to fp32: ROOM for other images, plus FACTOR times the difference at export.
ROOM, FACTOR = 0.01, 2.0


@dataclass(frozen=True)
class PrecisionTrial:
    """Two sessions compared on one batch."""

    first: float
    """Seconds per image."""
    rival: float
    """Seconds per image."""
    difference: float
    """Largest difference of their scores."""


def list_allowed(model: Model, limit: float) -> dict[Precision, float]:
    """Return the parity of each precision of the model that loses at most `limit` of the metric, fp32 included."""
    return {
        precision: entry.parity
        for precision, entry in model.onnx.items()
        if precision == "fp32" or entry.metric_loss <= limit
    }


def compare_sessions(first: ModelSession, rival: ModelSession, batch: NDArray[np.uint8]) -> PrecisionTrial:
    """Time both in turn on one view of a batch (images, height, width, 3); the fastest run of each counts.

    The view is that of the comparison at export. Raises SessionError.
    """
    view = ("identity",) if "identity" in first.cuts else first.cuts[:1]
    seconds: tuple[list[float], list[float]] = ([], [])
    answers: Sequence[NDArray[np.float32]] = ()
    for _ in range(1 + TRIALS):
        answers = []
        for session, spent in zip((first, rival), seconds, strict=True):
            started = time.perf_counter()
            answers.append(session.predict(batch, view))
            spent.append((time.perf_counter() - started) / len(batch))
    one, other = (min(spent[1:]) for spent in seconds)
    return PrecisionTrial(one, other, float(np.abs(answers[0] - answers[1]).max()))


def judge_trial(trial: PrecisionTrial, rival: Precision, parity: float) -> tuple[bool, str]:
    """Return whether to use the rival instead of fp32, and why; `parity`: the largest difference at export."""
    if trial.difference > ROOM + FACTOR * parity:
        return False, f"{rival} differs from fp32 by {trial.difference:.3f}, at export by {parity:.3f}"
    times = f"{rival} takes {1000 * trial.rival:.2f} ms per image, fp32 {1000 * trial.first:.2f}"
    return trial.rival < FASTER * trial.first, times
