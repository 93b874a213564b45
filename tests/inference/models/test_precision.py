"""Trials of a precision, on a clock that only the sessions move."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inference.models import precision
from inference.models.precision import PrecisionTrial, compare_sessions, judge_trial, list_allowed


@dataclass
class Session:
    """A stand-in whose runs take the given seconds and that returns `value` for every image."""

    seconds: list[float]
    value: float
    sizes: list[int] = field(default_factory=list)
    cuts: tuple[str, ...] = ("hflip", "identity")
    shown: set[tuple[str, ...]] = field(default_factory=set)

    def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
        CLOCK[0] += self.seconds[len(self.sizes)]
        self.sizes.append(len(batch))
        self.shown.add(tuple(views))
        answer = np.full((len(batch), 2), self.value, np.float32)
        answer[-1, -1] = 0.5
        return answer


CLOCK = [0.0]
BATCH = np.zeros((4, 2, 2, 3), np.uint8)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.time, "perf_counter", lambda: CLOCK[0])


def test_the_first_run_of_each_warms_up_and_the_fastest_of_the_others_counts() -> None:
    first, rival = Session([0.4, 8.0, 4.0], 0.25), Session([0.2, 3.0, 6.0], 0.375)
    trial = compare_sessions(first, rival, BATCH)  # type: ignore[arg-type]
    assert trial == PrecisionTrial(first=1.0, rival=0.75, difference=0.125)
    assert first.sizes == rival.sizes == [4, 4, 4] and first.shown == rival.shown == {("identity",)}
    assert precision.TRIAL_BATCHES == 6


def test_a_model_without_the_usual_view_is_tried_on_its_first() -> None:
    first, rival = (Session([1.0] * 3, 0.25, cuts=("top_left+hflip", "vflip")) for _ in range(2))
    compare_sessions(first, rival, BATCH)  # type: ignore[arg-type]
    assert first.shown == rival.shown == {("top_left+hflip",)}


@pytest.mark.parametrize(
    ("trial", "parity", "wanted"),
    [
        (PrecisionTrial(0.02, 0.018, 0.03), 0.02, (True, "int8 takes 18.00 ms per image, fp32 20.00")),
        (PrecisionTrial(0.02, 0.0195, 0.03), 0.02, (False, "int8 takes 19.50 ms per image, fp32 20.00")),
        (PrecisionTrial(0.02, 0.019, 0.03), 0.02, (False, "int8 takes 19.00 ms per image, fp32 20.00")),
        (PrecisionTrial(0.02, 0.0189, 0.03), 0.02, (True, "int8 takes 18.90 ms per image, fp32 20.00")),
        # Twice the difference at export, and 0.01 for other images.
        (PrecisionTrial(0.02, 0.001, 0.0499), 0.02, (True, "int8 takes 1.00 ms per image, fp32 20.00")),
        (PrecisionTrial(0.02, 0.001, 0.0501), 0.02, (False, "int8 differs from fp32 by 0.050, at export by 0.020")),
        (PrecisionTrial(0.02, 0.001, 0.0099), 0.0, (True, "int8 takes 1.00 ms per image, fp32 20.00")),
        (PrecisionTrial(0.02, 0.001, 0.0101), 0.0, (False, "int8 differs from fp32 by 0.010, at export by 0.000")),
        (PrecisionTrial(0.02, 0.001, 0.21), 0.1, (True, "int8 takes 1.00 ms per image, fp32 20.00")),
    ],
)
def test_a_trial_is_won_by_speed_and_lost_by_different_output(
    trial: PrecisionTrial, parity: float, wanted: tuple[bool, str]
) -> None:
    assert judge_trial(trial, "int8", parity) == wanted


def test_a_precision_is_allowed_up_to_the_limit_of_its_loss_and_fp32_always() -> None:
    def entry(loss: float, parity: float) -> Any:
        return SimpleNamespace(metric_loss=loss, parity=parity)

    files = {"fp32": entry(0.5, 1e-6), "fp16": entry(0.002, 0.01), "int8": entry(0.0021, 0.03)}
    model: Any = SimpleNamespace(onnx=files)
    assert list_allowed(model, 0.002) == {"fp32": 1e-6, "fp16": 0.01}
    assert list_allowed(model, -1.0) == {"fp32": 1e-6}
