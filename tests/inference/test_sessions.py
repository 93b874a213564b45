"""What a batch is cut into, and where its parts run; GPUs are stood in for by the CPU."""

import threading
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest

from inference import sessions
from inference.errors import SessionError
from inference.rules import View
from inference.run_log import RunLog
from inference.runners import Runner
from inference.sessions import CPU, CUDA, ModelSession
from tests.conftest import Workshop

BATCH = np.random.default_rng(0).integers(0, 256, (7, 48, 48, 3), dtype=np.uint8)


class Device:
    """A session that says it is on a GPU, answers by the CPU, and notes how many pictures it was given."""

    def __init__(self, path: Any, options: Any, providers: list[Any], disabled_optimizers: list[str] | None = None):
        self.asked = providers[0]
        self.disabled = disabled_optimizers
        self.sizes: list[int] = []
        self._session = onnxruntime.InferenceSession(path, options, providers=[CPU])
        MADE.append(self)

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_providers(self) -> list[str]:
        return [GIVEN.get(self.asked[1]["device_id"], CUDA), CPU]

    def run(self, names: Any, feeds: dict[str, np.ndarray], options: Any) -> Any:
        self.sizes.append(len(feeds["image"]))
        BARRIER.wait(timeout=30)  # broken unless both devices work at a time
        return self._session.run(names, feeds, options)


MADE: list[Device] = []
GIVEN: dict[int, str] = {}
BARRIER = threading.Barrier(2)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    MADE.clear()
    GIVEN.clear()

    class Stand:
        InferenceSession = Device
        SessionOptions, RunOptions = onnxruntime.SessionOptions, onnxruntime.RunOptions
        get_available_providers = staticmethod(lambda: [CUDA, CPU])

    monkeypatch.setattr(sessions, "onnxruntime", Stand)


@pytest.mark.usefixtures("two_gpus")
def test_two_gpus_each_take_a_part_of_the_batch_at_the_same_time(workshop: Workshop) -> None:
    session = ModelSession("culture", workshop.dataset / "culture.onnx", 2, gpus=2)
    answer = session.predict(BATCH)
    assert [device.asked[1]["device_id"] for device in MADE] == [0, 1]
    assert [device.sizes for device in MADE] == [[4], [3]]
    assert all(device.disabled == ["Pad_Fusion"] for device in MADE)
    assert session.provider == CUDA
    alone = onnxruntime.InferenceSession(workshop.dataset / "culture.onnx", providers=[CPU])
    np.testing.assert_allclose(answer, alone.run(None, {"image": BATCH})[0], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("two_gpus")
def test_one_gpu_that_falls_back_to_the_cpu_is_not_hidden_by_the_other(workshop: Workshop) -> None:
    GIVEN[1] = CPU
    assert ModelSession("culture", workshop.dataset / "culture.onnx", 2, gpus=2).provider == CPU


@pytest.mark.parametrize("cores", [1, 2, 3, 16])
def test_the_answer_is_the_same_to_the_bit_however_many_cores_share_the_batch(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    path = workshop.dataset / "culture.onnx"
    whole = ModelSession("culture", path, 2)
    wanted = {
        view: np.concatenate([whole.predict(BATCH[at : at + 1], view) for at in range(len(BATCH))])
        for view in get_args(View)
    }
    assert not np.array_equal(wanted["identity"], wanted["hflip"])
    monkeypatch.setattr(sessions, "CORES", cores)
    for view in get_args(View):
        np.testing.assert_array_equal(ModelSession("culture", path, 2).predict(BATCH, view), wanted[view])


def test_where_the_system_gives_no_thread_the_pictures_are_answered_one_by_one(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoThreads:
        def map(self, *_: object) -> None:
            raise RuntimeError("can't start new thread")

    path, log = workshop.dataset / "culture.onnx", RunLog()
    monkeypatch.setattr(sessions, "CORES", 2)
    wanted = ModelSession("culture", path, 2).predict(BATCH)
    monkeypatch.setattr(sessions, "LANES", NoThreads())
    runner = Runner(lambda *_: ModelSession("culture", path, 2), 0, len(BATCH), log)
    np.testing.assert_array_equal(runner.predict(BATCH, "identity"), wanted)
    assert log.notes == [
        "model culture fails on a batch of (7, 48, 48, 3): can't start new thread: goes on with batches of 3",
        "model culture fails on a batch of (3, 48, 48, 3): can't start new thread: goes on with batches of 1",
    ]
    assert log.degraded == []


def test_a_session_that_was_stopped_says_so_on_every_core(workshop: Workshop) -> None:
    session = ModelSession("culture", workshop.dataset / "culture.onnx", 2)
    session.stop()
    with pytest.raises(SessionError, match=r"^model culture fails on a batch of \(7, 48, 48, 3\)"):
        session.predict(BATCH)
