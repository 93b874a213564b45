"""In which precision a model runs: fp32, or one that is faster on its device and costs little.

fp16 may be faster on a GPU, int8 on a CPU. Whether it may be used, the manifest says: it must lose no more F2 than
`runtime.f2_loss`. Whether it is faster, a trial on the model's first batch says, which also holds its answers against
those of fp32. The choice stands in the mark of every chunk, so that a run that is continued keeps it and ends with the
same bytes; `--precision` makes the choice beforehand, without a trial.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.manifest.records import Model
from inference.manifest.values import Precision
from inference.models.sessions import CPU, CUDA, ModelSession

RIVALS: Mapping[str, Precision] = {CUDA: "fp16", CPU: "int8"}  # what may be faster than fp32, by provider
TRIALS = 2  # of each session, after one that warms it up
TRIAL_BATCHES = 2 * (1 + TRIALS)
FASTER = 0.95  # a rival is taken where it needs less than this part of fp32's time
# Answers here may differ from fp32's so much: twice what they did at home, and a little for other images.
ROOM, FACTOR = 0.01, 2.0


@dataclass(frozen=True)
class PrecisionTrial:
    """Two sessions on one batch: seconds of an image of each, and the largest difference of their probabilities."""

    first: float
    rival: float
    difference: float


def list_allowed(model: Model, limit: float) -> dict[Precision, float]:
    """The precisions of the model that lose at most `limit` of F2, fp32 among them, and the parity of each."""
    return {
        precision: entry.parity
        for precision, entry in model.onnx.items()
        if precision == "fp32" or entry.f2_loss <= limit
    }


def compare_sessions(first: ModelSession, rival: ModelSession, batch: NDArray[np.uint8]) -> PrecisionTrial:
    """Run both in turn on a batch (images, height, width, 3); of each the fastest counts. Raises SessionError."""
    seconds: tuple[list[float], list[float]] = ([], [])
    answers: Sequence[NDArray[np.float32]] = ()
    for _ in range(1 + TRIALS):
        answers = []
        for session, spent in zip((first, rival), seconds, strict=True):
            started = time.perf_counter()
            answers.append(session.predict(batch))
            spent.append((time.perf_counter() - started) / len(batch))
    one, other = (min(spent[1:]) for spent in seconds)
    return PrecisionTrial(one, other, float(np.abs(answers[0] - answers[1]).max()))


def judge_trial(trial: PrecisionTrial, rival: Precision, parity: float) -> tuple[bool, str]:
    """Whether the rival of fp32 is taken, and why; `parity`: the largest difference that it had at home."""
    if trial.difference > ROOM + FACTOR * parity:
        return False, f"{rival} answers otherwise than at home: by {trial.difference:.3f}, there by {parity:.3f}"
    times = f"{rival} takes {1000 * trial.rival:.2f} ms an image, fp32 {1000 * trial.first:.2f}"
    return trial.rival < FASTER * trial.first, times
