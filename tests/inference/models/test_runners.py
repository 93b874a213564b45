"""Sessions that fail like devices; test_kernel.py checks the scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from inference.basics.errors import DegradedError, DeviceMemoryError, SessionError
from inference.basics.run_log import RunLog
from inference.models import precision, runners
from inference.models.runners import BatchSizes, Runner

GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
PICTURES = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)


@dataclass
class Session:
    """A stand-in that returns the mean of each image; `memory`: largest batch in images times views."""

    provider: str
    memory: int
    name: str = "m"
    lanes: int = 1
    sizes: list[int] = field(default_factory=list)

    def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
        self.sizes.append(len(batch) * len(views))
        assert len(batch) <= full or not full
        if len(batch) * len(views) > self.memory:
            raise DeviceMemoryError(f"model m fails on a batch of {len(batch)}: out of memory")
        return (batch.mean(axis=(1, 2, 3)) / 255).astype(np.float32)[:, None]


WANTED = (PICTURES.mean(axis=(1, 2, 3)) / 255).astype(np.float32)[:, None]


def make_runner(gpu: Session, cpu: Session, log: RunLog) -> Runner:
    return Runner(lambda wanted, _: gpu if wanted else cpu, 1, 16, log)  # type: ignore[arg-type, return-value]


def test_out_of_memory_halves_the_batch_until_it_fits_and_every_image_gets_scores() -> None:
    log, gpu = RunLog(), Session(GPU, memory=5)
    runner = make_runner(gpu, Session(CPU, 16), log)
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    assert gpu.sizes == [16, 8, 4, 4, 4, 4]
    assert log.notes == [
        "model m fails on a batch of 16: out of memory; continues with batches of 8",
        "model m fails on a batch of 8: out of memory; continues with batches of 4",
    ]
    assert log.degraded == [], "no scores are missing"
    gpu.sizes.clear()
    runner.predict(PICTURES, ("identity",))
    assert max(gpu.sizes) == 4, "a size that did not fit is not tried again"


@pytest.mark.parametrize(("memory", "sizes"), [(16, [16, 16]), (7, [16, 8] + [4] * 8), (1, [16, 8, 4, 2] + [1] * 32)])
def test_a_batch_contains_all_views_of_an_image_as_long_as_they_fit(memory: int, sizes: list[int]) -> None:
    gpu = Session(GPU, memory)
    runner = make_runner(gpu, Session(CPU, 16), RunLog())
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity", "hflip")), WANTED)
    assert gpu.sizes == sizes


def test_the_fastest_batch_is_found_if_tiles_make_a_chunk_longer_than_a_batch() -> None:
    gpu = Session(GPU, memory=16)
    runner = make_runner(gpu, Session(CPU, 16), RunLog())
    pictures = np.concatenate([PICTURES, PICTURES[:3]])
    for _ in range(3):
        np.testing.assert_array_equal(runner.predict(pictures, ("identity",)), np.concatenate([WANTED, WANTED[:3]]))
    assert gpu.sizes == [16, 3, 16, 3, 8, 8, 3], "after two trials of the largest, its half"


def test_if_one_image_does_not_fit_the_gpu_the_model_moves_to_the_cpu() -> None:
    log, gpu, cpu = RunLog(), Session(GPU, memory=0), Session(CPU, memory=16)
    runner = make_runner(gpu, cpu, log)
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    assert gpu.sizes == [16, 8, 4, 2, 1] and cpu.sizes == [16]
    assert log.degraded == [
        "model m fails on a batch of 1: out of memory; this model runs on the CPU instead of the GPU"
    ]


def test_if_the_cpu_runs_out_of_memory_too_the_model_fails() -> None:
    with pytest.raises(DeviceMemoryError, match="fails on a batch of 1: out of memory"):
        make_runner(Session(GPU, 0), Session(CPU, 0), RunLog()).predict(PICTURES, ("identity",))


def test_a_model_that_does_not_load_on_the_gpu_loads_on_the_cpu_and_strict_forbids_it() -> None:
    def open_session(gpus: int, _: str) -> Session:
        if gpus:
            raise SessionError("model m: m.onnx does not load: no kernel image")
        return Session(CPU, 16)

    log = RunLog()
    runner = Runner(open_session, 1, 16, log)  # type: ignore[arg-type]
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    note = "model m: m.onnx does not load: no kernel image; this model runs on the CPU instead of the GPU"
    assert log.degraded == [note]
    with pytest.raises(DegradedError) as error:
        Runner(open_session, 1, 16, RunLog(strict=True))  # type: ignore[arg-type]
    assert str(error.value) == f"{note} (--strict)"


def test_the_same_scores_for_different_images_are_an_error() -> None:
    class Blind(Session):
        def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
            return np.full((len(batch), 2), 0.25, np.float32)

    runner = make_runner(Blind(GPU, 16), Blind(CPU, 16), RunLog())
    with pytest.raises(SessionError, match=r"^model m: gives 16 different images the same scores$"):
        runner.predict(PICTURES, ("identity",))
    same = np.repeat(PICTURES[:1], 16, axis=0)
    assert runner.predict(same, ("identity",)).shape == (16, 2), "equal images get equal scores"
    assert runner.predict(PICTURES[:3], ("identity",)).shape == (3, 2), "three images may be similar"


def test_the_fastest_batch_size_is_found_on_the_first_chunks_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(runners.time, "perf_counter", lambda: now)

    class Timed(Session):
        def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
            nonlocal now
            now += {16: 4.0, 8: 1.0, 4: 0.9}[len(batch)] * (3 if not self.sizes else 1)  # the first batch warms up
            return super().predict(batch, views, full)

    gpu = Timed(GPU, 16)
    runner = make_runner(gpu, Session(CPU, 16), RunLog())
    for _ in range(8):
        np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    assert gpu.sizes == [16] * 2 + [8] * 4 + [4] * 8 + [8] * 4, "two seconds by 8, four by 16, 3.6 by 4"


@pytest.mark.parametrize(
    ("largest", "lanes", "tried"), [(16, 1, [16, 8, 4]), (16, 2, [16, 8, 4]), (8, 2, [8, 4]), (4, 2, [4]), (2, 2, [2])]
)
def test_no_batch_is_tried_that_leaves_a_lane_without_work(largest: int, lanes: int, tried: list[int]) -> None:
    cpu = Session(CPU, 16, lanes=lanes)
    runner = Runner(lambda *_: cpu, 0, largest, RunLog())  # type: ignore[arg-type, return-value]
    for _ in range(8):
        runner.predict(PICTURES[:largest], ("identity",))
    assert list(dict.fromkeys(cpu.sizes)) == tried


def test_of_about_equal_batch_sizes_the_larger_is_kept() -> None:
    sizes = BatchSizes(8)
    for seconds in (1.0, 1.0, 0.97, 0.97, 0.96, 0.96):
        sizes.note(sizes.current(), seconds)
    assert sizes.current() == 8


class Timed(Session):
    """A stand-in that takes `seconds` per image on the tests' clock and returns the mean plus `off`."""

    def __init__(self, provider: str, seconds: float, off: float = 0.0) -> None:
        super().__init__(provider, memory=16)
        self.seconds, self.off = seconds, off

    def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
        Timed.now += self.seconds * len(batch) * (5 if not self.sizes else 1)  # the first batch warms up
        return super().predict(batch, views, full) + np.float32(self.off)

    now = 0.0


RIVALS = {"fp32": 1e-6, "fp16": 0.002, "int8": 0.03}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.time, "perf_counter", lambda: Timed.now)


def make_choice(sessions: dict[str, Session], gpu: bool, log: RunLog, start: str = "fp32") -> Runner:
    def open_session(gpu: bool, wanted: str) -> Session:
        assert gpu == (sessions[wanted].provider == GPU)
        return sessions[wanted]

    return Runner(open_session, gpu, 16, log, start, RIVALS)  # type: ignore[arg-type]


@pytest.mark.parametrize(("provider", "rival"), [(GPU, "fp16"), (CPU, "int8")])
def test_the_rival_of_the_device_is_used_if_a_trial_finds_it_faster(provider: str, rival: str, clock: None) -> None:
    sessions: dict[str, Session] = {"fp32": Timed(provider, 0.02), rival: Timed(provider, 0.0125)}
    log = RunLog()
    runner = make_choice(sessions, provider == GPU, log)
    assert (runner.precision, runner.is_settled) == ("fp32", False)
    assert runner.settle(PICTURES) == pytest.approx(16 * 7 * 0.0325)
    assert (runner.precision, runner.is_settled) == (rival, True)
    assert log.notes == [f"model m: runs in {rival}: {rival} takes 12.50 ms per image, fp32 20.00"]
    tried = {name: len(session.sizes) for name, session in sessions.items()}
    assert runner.settle(PICTURES) == 0, "a final choice is kept"
    runner.predict(PICTURES, ("identity",))
    assert {name: len(session.sizes) - tried[name] for name, session in sessions.items()} == {"fp32": 0, rival: 1}


def test_a_rival_that_is_not_faster_is_not_used(clock: None) -> None:
    log = RunLog()
    runner = make_choice({"fp32": Timed(GPU, 0.02), "fp16": Timed(GPU, 0.0195)}, True, log)
    runner.settle(PICTURES)
    assert (runner.precision, runner.is_settled) == ("fp32", True)
    assert log.notes == ["model m: runs in fp32: fp16 takes 19.50 ms per image, fp32 20.00"]


def test_a_fast_rival_that_differs_more_than_at_export_is_not_used(clock: None) -> None:
    log = RunLog()
    runner = make_choice({"fp32": Timed(GPU, 0.02), "fp16": Timed(GPU, 0.001, off=0.25)}, True, log)
    runner.settle(PICTURES)
    assert runner.precision == "fp32"
    assert log.notes == ["model m: runs in fp32: fp16 differs from fp32 by 0.250, at export by 0.002"]


def test_a_rival_that_fails_is_not_used_and_causes_no_other_loss(clock: None) -> None:
    class Broken(Timed):
        def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
            raise SessionError("model m: its output is not a probability: NaN or outside [0, 1]")

    log = RunLog()
    runner = make_choice({"fp32": Timed(GPU, 0.02), "fp16": Broken(GPU, 0.01)}, True, log)
    runner.settle(PICTURES)
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    note = "model m: its output is not a probability: NaN or outside [0, 1]; this model stays in fp32"
    assert (runner.precision, log.notes, log.degraded) == ("fp32", [note], [])


def test_without_time_for_a_trial_fp32_is_kept(clock: None) -> None:
    sessions: dict[str, Session] = {"fp32": Timed(CPU, 0.02), "int8": Timed(CPU, 0.01)}
    runner = make_choice(sessions, False, RunLog())
    assert runner.settle(PICTURES, has_time=False) == 0
    assert (runner.precision, runner.is_settled) == ("fp32", True)
    runner.settle(PICTURES)
    assert sessions["int8"].sizes == [] and runner.precision == "fp32"


def test_a_trial_uses_a_batch_that_fits_both_sessions(clock: None) -> None:
    sessions: dict[str, Session] = {"fp32": Timed(GPU, 0.02), "fp16": Timed(GPU, 0.01)}
    sessions["fp32"].memory = 5
    runner = make_choice(sessions, True, RunLog())
    runner.settle(PICTURES)
    assert sessions["fp32"].sizes == [16, 8, 4, 4, 4] and runner.precision == "fp16"


def test_a_model_that_moves_from_the_gpu_to_the_cpu_changes_from_fp16_to_fp32() -> None:
    gpu, cpu = Session(GPU, memory=0), Session(CPU, memory=16)
    opened: list[tuple[bool, str]] = []

    def open_session(wanted: bool, precision: str) -> Session:
        opened.append((wanted, precision))
        return gpu if wanted else cpu

    runner = Runner(open_session, True, 16, RunLog(), "fp16")  # type: ignore[arg-type]
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    assert opened == [(True, "fp16"), (False, "fp32")] and runner.precision == "fp32"


def test_a_model_that_does_not_load_in_the_requested_precision_runs_in_fp32_with_a_warning() -> None:
    def open_session(gpu: bool, precision: str) -> Session:
        if precision == "fp16":
            raise SessionError("model m: m.fp16.onnx does not load: no kernel")
        return Session(GPU, 16)

    log = RunLog()
    runner = Runner(open_session, True, 16, log, "fp16")  # type: ignore[arg-type]
    assert (runner.precision, runner.session.provider) == ("fp32", GPU)
    assert log.degraded == ["model m: m.fp16.onnx does not load: no kernel; this model runs in fp32"]
