"""Sessions that fail like devices; test_kernel.py checks the scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from inference.basics.errors import DegradedError, DeviceLostError, DeviceMemoryError, SessionError
from inference.basics.run_log import RunLog
from inference.models import precision, runners
from inference.models.gpus import Gpus
from inference.models.runners import Runner

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
    fault: SessionError | None = None
    """Raised by every batch."""
    warmed: list[tuple[int, int, int]] = field(default_factory=list)
    """(images, views, images of a full batch) of each call to warm up."""
    stopped: bool = False
    cuts: tuple[str, ...] = ("identity", "hflip")
    merge: str = "mean"

    def warm_up(self, batch: np.ndarray, views: Sequence[str], full: int) -> None:
        self.warmed.append((len(batch), len(views), full))
        self.predict(batch, views, full)

    def stop(self) -> None:
        self.stopped = True

    def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
        self.sizes.append(len(batch) * len(views))
        assert len(batch) <= full or not full
        if self.stopped:
            raise SessionError("model m fails on a batch: Exiting due to terminate flag being set to true.")
        if self.fault:
            raise self.fault
        if len(batch) * len(views) > self.memory:
            raise DeviceMemoryError(f"model m fails on a batch of {len(batch)}: out of memory")
        return (batch.mean(axis=(1, 2, 3)) / 255).astype(np.float32)[:, None]


WANTED = (PICTURES.mean(axis=(1, 2, 3)) / 255).astype(np.float32)[:, None]


def make_runner(gpu: Session, cpu: Session, log: RunLog, gpus: Gpus | None = None) -> Runner:
    gpus = gpus or Gpus(["Tesla T4"], log)
    return Runner(lambda wanted, _: gpu if wanted else cpu, gpus, 16, log)  # type: ignore[arg-type, return-value]


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
            raise SessionError("model m: m.onnx does not load: no such operator")
        return Session(CPU, 16)

    log = RunLog()
    gpus = Gpus(["Tesla T4"], log)
    runner = Runner(open_session, gpus, 16, log)  # type: ignore[arg-type]
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    note = "model m: m.onnx does not load: no such operator; this model runs on the CPU instead of the GPU"
    assert log.degraded == [note]
    with pytest.raises(DegradedError) as error:
        Runner(open_session, gpus, 16, RunLog(strict=True))  # type: ignore[arg-type]
    assert str(error.value) == f"{note} (--strict)"
    assert gpus.count == 1, "the next model tries the GPU"


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
    runner = Runner(lambda *_: cpu, Gpus([], RunLog()), largest, RunLog())  # type: ignore[arg-type, return-value]
    for _ in range(8):
        runner.predict(PICTURES[:largest], ("identity",))
    assert list(dict.fromkeys(cpu.sizes)) == tried


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
    def open_session(gpus: int, wanted: str) -> Session:
        assert bool(gpus) == (sessions[wanted].provider == GPU)
        return sessions[wanted]

    return Runner(open_session, Gpus(["Tesla T4"] * gpu, log), 16, log, start, RIVALS)  # type: ignore[arg-type]


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

    runner = Runner(open_session, Gpus(["Tesla T4"], RunLog()), 16, RunLog(), "fp16")  # type: ignore[arg-type]
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    assert opened == [(True, "fp16"), (False, "fp32")] and runner.precision == "fp32"


def test_a_model_that_does_not_load_in_the_requested_precision_runs_in_fp32_with_a_warning() -> None:
    def open_session(gpu: bool, precision: str) -> Session:
        if precision == "fp16":
            raise SessionError("model m: m.fp16.onnx does not load: no kernel")
        return Session(GPU, 16)

    log = RunLog()
    runner = Runner(open_session, Gpus(["Tesla T4"], log), 16, log, "fp16")  # type: ignore[arg-type]
    assert (runner.precision, runner.session.provider) == ("fp32", GPU)
    assert log.degraded == ["model m: m.fp16.onnx does not load: no kernel; this model runs in fp32"]


LOST = DeviceLostError("model m fails on a batch of (16, 4, 4, 3): CUDA failure 700: an illegal memory access")
NOTE = f"Tesla T4: GPU not used, running on the CPU: {LOST}"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The sessions that are never destroyed."""
    sessions: list[Session] = []
    monkeypatch.setattr(Gpus, "keep", lambda _, session: sessions.append(session))
    return sessions


def test_all_models_leave_a_lost_gpu_with_one_note(kept: list[Session]) -> None:
    log = RunLog()
    gpus = Gpus(["Tesla T4"], log)
    lost, fine, cpus = Session(GPU, 16, fault=LOST), Session(GPU, 16), [Session(CPU, 16), Session(CPU, 16)]
    runners = [make_runner(gpu, cpu, log, gpus) for gpu, cpu in zip((lost, fine), cpus, strict=True)]
    for runner in runners:
        np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
        np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    assert (lost.sizes, fine.sizes) == ([16], []), "no other model tries the lost GPU"
    assert [cpu.sizes for cpu in cpus] == [[16, 16], [16, 16]]
    assert log.degraded == [NOTE]
    assert all(runner.session.provider == CPU for runner in runners)
    assert kept == [lost, fine]
    later = make_runner(fine, cpus[1], log, gpus)
    assert later.session is cpus[1] and log.degraded == [NOTE]


def test_a_gpu_that_is_refused_while_a_model_is_opened_is_left_by_all() -> None:
    refused, opened = DeviceLostError("onnxruntime 1.26.0 refused it: no driver"), []

    def open_session(gpus: int, precision: str) -> Session:
        opened.append((gpus, precision))
        if gpus:
            raise refused
        return Session(CPU, 16)

    log = RunLog()
    gpus = Gpus(["Tesla T4", "Tesla T4"], log)
    for _ in range(2):
        assert Runner(open_session, gpus, 16, log, "int8").precision == "int8"  # type: ignore[arg-type]
    assert opened == [(2, "int8"), (0, "int8"), (0, "int8")]
    assert log.degraded == [f"Tesla T4 and Tesla T4: GPU not used, running on the CPU: {refused}"]


def test_a_cpu_that_reports_a_lost_device_is_an_error_of_the_model() -> None:
    with pytest.raises(DeviceLostError):
        make_runner(Session(GPU, 16, fault=LOST), Session(CPU, 16, fault=LOST), RunLog()).predict(PICTURES, ("hflip",))

    def open_session(*_: object) -> Session:
        raise LOST

    with pytest.raises(DeviceLostError):
        Runner(open_session, Gpus([], RunLog()), 16, RunLog())  # type: ignore[arg-type]


def test_a_model_that_fails_on_the_gpu_alone_moves_to_the_cpu_alone() -> None:
    log, fault = RunLog(), SessionError("model m fails on a batch: CUDNN_STATUS_NOT_SUPPORTED")
    gpus = Gpus(["Tesla T4"], log)
    broken, cpu = Session(GPU, 16, fault=fault), Session(CPU, 16, lanes=8)
    runner = make_runner(broken, cpu, log, gpus)
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    assert (broken.sizes, cpu.sizes, gpus.count) == ([16], [16], 1)
    assert log.degraded == [f"{fault}; this model runs on the CPU instead of the GPU"]
    for _ in range(3):
        runner.predict(PICTURES, ("identity",))
    assert cpu.sizes == [16] * 4, "with eight lanes, smaller batches are not tried"
    cpu.fault = fault
    with pytest.raises(SessionError, match="CUDNN_STATUS_NOT_SUPPORTED"):
        runner.predict(PICTURES, ("identity",))


@pytest.mark.parametrize(("provider", "chosen"), [(GPU, "fp16"), (CPU, "int8")])
def test_a_model_that_fails_in_a_precision_runs_in_fp32_on_the_same_device(provider: str, chosen: str) -> None:
    log, fault = RunLog(), SessionError("model m: its output is not a probability: NaN or outside [0, 1]")
    sessions = {chosen: Session(provider, 16, fault=fault), "fp32": Session(provider, 16)}
    runner = make_choice(sessions, provider == GPU, log, chosen)
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    assert (runner.session, runner.precision) == (sessions["fp32"], "fp32")
    assert log.degraded == [f"{fault}; this model runs in fp32"]


@pytest.mark.parametrize(("first", "then"), [("fp16", "fp32"), ("int8", "int8"), ("fp32", "fp32")])
def test_a_model_that_leaves_a_lost_gpu_leaves_fp16_too(first: str, then: str) -> None:
    opened = []

    def open_session(gpus: int, precision: str) -> Session:
        opened.append((gpus, precision))
        return Session(GPU, 16, fault=LOST) if gpus else Session(CPU, 16)

    log = RunLog()
    runner = Runner(open_session, Gpus(["Tesla T4"], log), 16, log, first)  # type: ignore[arg-type]
    runner.predict(PICTURES, ("identity",))
    assert opened == [(1, first), (0, then)] and (runner.precision, log.degraded) == (then, [NOTE])


def test_a_model_that_loads_nowhere_is_an_error_after_fp32_and_the_cpu_were_tried() -> None:
    opened = []

    def open_session(gpus: int, precision: str) -> Session:
        opened.append((gpus, precision))
        raise SessionError(f"model m: m.{precision}.onnx does not load: {gpus}")

    log = RunLog()
    with pytest.raises(SessionError, match=r"^model m: m\.fp32\.onnx does not load: 0$"):
        Runner(open_session, Gpus(["a", "b"], log), 16, log, "fp16")  # type: ignore[arg-type]
    assert opened == [(2, "fp16"), (2, "fp32"), (0, "fp32")]
    assert log.degraded == [
        "model m: m.fp16.onnx does not load: 2; this model runs in fp32",
        "model m: m.fp32.onnx does not load: 2; this model runs on the CPU instead of the GPU",
    ]


def test_the_gpu_may_be_lost_in_a_trial(kept: list[Session]) -> None:
    log = RunLog()
    gpus = Gpus(["Tesla T4"], log)
    rival, cpu = Session(GPU, 16, fault=LOST), Session(CPU, 16)

    def open_session(count: int, precision: str) -> Session:
        return cpu if not count else rival if precision == "fp16" else Session(GPU, 16)

    runner = Runner(open_session, gpus, 16, log, "fp32", RIVALS)  # type: ignore[arg-type]
    first = runner.session
    runner.settle(PICTURES)
    assert (runner.is_settled, gpus.count, log.notes, log.degraded) == (True, 0, [], [NOTE])
    np.testing.assert_array_equal(runner.predict(PICTURES, ("identity",)), WANTED)
    assert cpu.sizes == [16] and kept == [rival, first]


def test_a_lost_device_in_a_trial_on_the_cpu_is_a_fault_of_the_rival() -> None:
    log = RunLog()
    runner = make_choice({"fp32": Session(CPU, 16), "int8": Session(CPU, 16, fault=LOST)}, False, log)
    runner.settle(PICTURES)
    assert log.notes == [f"{LOST}; this model stays in fp32"] and log.degraded == []


def test_warming_up_runs_a_full_batch_of_the_current_size(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((10.0, 17.5))
    gpu = Session(GPU, 16)
    runner = make_runner(gpu, Session(CPU, 16), RunLog())
    monkeypatch.setattr(runners.time, "perf_counter", lambda: next(now))
    assert runner.warm_up(PICTURES, ("identity",)) == 7.5
    monkeypatch.undo()
    runner.warm_up(PICTURES, ("identity", "hflip"))
    runner.warm_up(PICTURES[:3], ("identity", "hflip"))
    assert gpu.warmed == [(16, 1, 16), (8, 2, 8), (3, 2, 8)]
    for _ in range(2):
        runner.predict(PICTURES, ("identity",))
    runner.warm_up(PICTURES, ("identity",))
    assert gpu.warmed[-1] == (8, 1, 8), "the next size to try"


def test_warming_up_finds_the_batch_that_fits() -> None:
    log, gpu = RunLog(), Session(GPU, memory=1)
    runner = make_runner(gpu, Session(CPU, 16), log)
    runner.warm_up(PICTURES, ("identity", "hflip"))
    assert gpu.warmed == [(8, 2, 8), (4, 2, 4), (2, 2, 2), (1, 2, 1), (1, 1, 1)] and len(log.notes) == 4
    cpu = Session(CPU, 16)
    runner = make_runner(Session(GPU, 16, fault=LOST), cpu, log)
    runner.warm_up(PICTURES, ("identity",))
    assert cpu.warmed == [(16, 1, 16)] and log.degraded == [NOTE]


def test_a_stopped_model_falls_back_no_further() -> None:
    log, gpu, cpu = RunLog(), Session(GPU, 16), Session(CPU, 16)
    runner = make_runner(gpu, cpu, log)
    runner.stop()
    for work in (runner.predict, runner.warm_up):
        with pytest.raises(SessionError, match="terminate flag"):
            work(PICTURES, ("identity",))
    assert cpu.sizes == [] and log.degraded == [] and gpu.stopped


def test_a_model_that_is_stopped_while_it_moves_to_the_cpu_does_not_run_there() -> None:
    """The time limit's alarm sees the session of the GPU only."""
    cpu = Session(CPU, 16)
    runner: Runner

    def open_session(gpus: int, _: str) -> Session:
        if not gpus:
            runner.stop()
        return Session(GPU, 16, fault=LOST) if gpus else cpu

    runner = Runner(open_session, Gpus(["Tesla T4"], RunLog()), 16, RunLog())  # type: ignore[arg-type]
    with pytest.raises(SessionError, match="terminate flag"):
        runner.predict(PICTURES, ("identity",))
    assert cpu.stopped and cpu.sizes == [16]


@pytest.mark.parametrize("while_opening", [False, True])
def test_a_stop_ends_a_trial_without_a_note(while_opening: bool) -> None:
    log, rival = RunLog(), Session(CPU, 16)
    runner: Runner

    class Stopping(Session):
        def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
            if not while_opening:
                runner.stop()
            return super().predict(batch, views, full)

    def open_session(_: int, precision: str) -> Session:
        if precision == "int8":
            if while_opening:
                runner.stop()
            return rival
        return Stopping(CPU, 16)

    runner = Runner(open_session, Gpus([], log), 16, log, "fp32", RIVALS)  # type: ignore[arg-type]
    runner.settle(PICTURES)
    assert runner.session.stopped and rival.stopped and log.notes == []  # type: ignore[attr-defined]
    assert runner.precision == "fp32"


def test_a_trial_gets_the_images_of_one_batch(clock: None) -> None:
    sessions: dict[str, Session] = {"fp32": Timed(CPU, 0.02), "int8": Timed(CPU, 0.01)}
    make_choice(sessions, False, RunLog()).settle(np.concatenate([PICTURES, PICTURES]))
    assert set(sessions["int8"].sizes) == {16}


def test_a_trial_that_fits_no_image_is_lost(clock: None) -> None:
    log = RunLog()
    sessions: dict[str, Session] = {"fp32": Timed(GPU, 0.02), "fp16": Timed(GPU, 0.01)}
    sessions["fp16"].memory = 0
    make_choice(sessions, True, log).settle(PICTURES)
    assert sessions["fp16"].sizes == [16, 8, 4, 2, 1]
    assert log.notes == ["model m fails on a batch of 1: out of memory; this model stays in fp32"]


def test_four_different_images_with_the_same_scores_are_enough() -> None:
    class Blind(Session):
        def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
            return np.full((len(batch), 2), 0.25, np.float32)

    runner = make_runner(Blind(GPU, 16), Blind(CPU, 16), RunLog())
    with pytest.raises(SessionError, match=r"^model m: gives 4 different images the same scores$"):
        runner.predict(PICTURES[:4], ("identity",))
    three = PICTURES[[0, 1, 2, 0, 1, 2]]
    assert runner.predict(three, ("identity",)).shape == (6, 2), "three different images"


def test_one_label_of_one_image_that_differs_is_enough_variety() -> None:
    class Nearly(Session):
        def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
            answer = np.full((len(batch), 2), 0.25, np.float32)
            answer[-1, 1] = 0.26
            return answer

    nearly = Nearly(CPU, 16)
    assert make_runner(nearly, nearly, RunLog()).predict(PICTURES, ("identity",)).shape == (16, 2)


def test_a_model_on_a_lost_gpu_decides_on_its_precision_when_it_has_left_it(kept: list[Session], clock: None) -> None:
    gpus = Gpus(["Tesla T4"], RunLog())
    sessions = {(1, "fp32"): Timed(GPU, 0.01), (0, "fp32"): Timed(CPU, 0.02), (0, "int8"): Timed(CPU, 0.01)}
    runner = Runner(lambda *asked: sessions[asked], gpus, 16, RunLog(), "fp32", RIVALS)  # type: ignore[index]
    gpus.give_up(LOST)
    assert runner.settle(PICTURES) == 0 and not runner.is_settled
    runner.predict(PICTURES, ("identity",))
    runner.settle(PICTURES)
    assert runner.session is sessions[0, "int8"] and kept == [sessions[1, "fp32"]]


def test_a_batch_size_is_judged_by_its_time_per_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks with tiles differ in their number of inputs."""
    now = 0.0
    monkeypatch.setattr(runners.time, "perf_counter", lambda: now)

    class Timed(Session):
        def predict(self, batch: np.ndarray, views: Sequence[str] = ("identity",), full: int = 0) -> np.ndarray:
            nonlocal now
            now += {16: 4.0, 8: 1.5, 4: 1.4}[len(batch)]
            return super().predict(batch, views, full)

    cpu = Timed(CPU, 32)
    runner = Runner(lambda *_: cpu, Gpus([], RunLog()), 16, RunLog())  # type: ignore[arg-type, return-value]
    for chunk in (1, 1, 4, 4, 4, 4, 1):
        runner.predict(np.concatenate([PICTURES] * chunk), ("identity",))
    assert cpu.sizes[-1] == 8
