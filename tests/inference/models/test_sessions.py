"""How a batch is split and where its parts run; the CPU stands in for GPUs."""

import threading
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from inference.basics.errors import SessionError
from inference.basics.run_log import RunLog
from inference.manifest.values import View
from inference.models import sessions
from inference.models.runners import Runner
from inference.models.sessions import CPU, CUDA, ModelSession, find_bucket
from inference.models.views import VIEWS
from tests.conftest import Workshop

BATCH = np.random.default_rng(0).integers(0, 256, (7, 48, 48, 3), dtype=np.uint8)


class Device:
    """A session that claims to use a GPU, runs on the CPU, and counts its batches."""

    def __init__(self, path: Any, options: Any, providers: list[Any], disabled_optimizers: list[str] | None = None):
        self.asked = providers[0]
        self.disabled = disabled_optimizers
        self.runs = 0
        self._session = onnxruntime.InferenceSession(path, options, providers=[CPU])
        MADE.append(self)

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_providers(self) -> list[str]:
        return [GIVEN.get(self.asked[1]["device_id"], CUDA), CPU]

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> Any:
        self.runs += 1
        BARRIER.wait(timeout=30)  # times out unless both devices run at the same time
        return self._session.run_with_iobinding(binding, options)


MADE: list[Device] = []
GIVEN: dict[int, str] = {}
BUFFERS: list[tuple[str, int, int]] = []  # device, its index, number of images
BARRIER = threading.Barrier(2)


class Values:
    @staticmethod
    def ortvalue_from_shape_and_type(shape: Any, kind: Any, device: str, index: int) -> Any:
        BUFFERS.append((device, index, shape[0]))
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for noted in (MADE, GIVEN, BUFFERS):
        noted.clear()

    class Stand:
        InferenceSession, OrtValue = Device, Values
        SessionOptions, RunOptions = onnxruntime.SessionOptions, onnxruntime.RunOptions
        get_available_providers = staticmethod(lambda: [CUDA, CPU])

    monkeypatch.setattr(sessions, "onnxruntime", Stand)


def ask(path: Path, batch: np.ndarray, view: int) -> np.ndarray:
    """Run one view in ONNX Runtime alone."""
    alone = onnxruntime.InferenceSession(path, providers=[CPU])
    (answer,) = alone.run(None, {"image": batch, "views": np.array([view])})
    return np.asarray(answer)


@pytest.mark.usefixtures("two_gpus")
def test_two_gpus_run_parts_of_the_batch_at_the_same_time(workshop: Workshop) -> None:
    path = workshop.dataset / "culture.onnx"
    session = ModelSession("culture", path, 2, gpus=2)
    answer = session.predict(BATCH, full=8)
    assert [device.asked[1]["device_id"] for device in MADE] == [0, 1]
    assert [device.runs for device in MADE] == [1, 1]
    assert sorted(BUFFERS) == [("cuda", 0, 4), ("cuda", 1, 4)]
    assert all(device.disabled == ["Pad_Fusion"] for device in MADE)
    assert session.provider == CUDA
    np.testing.assert_allclose(answer, ask(path, BATCH, 0), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_gets_few_batch_sizes_and_reuses_the_buffer_of_each(workshop: Workshop) -> None:
    path = workshop.dataset / "culture.onnx"
    session = ModelSession("culture", path, 2, gpus=2)
    for images in (16, 15, 13, 16, 9, 3):
        batch = np.concatenate([BATCH] * 3)[:images]
        answer = session.predict(batch, ("identity", "hflip"), full=16)
        wanted = (ask(path, batch, 0) + ask(path, batch, 1)) / 2
        np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-6)
    assert [images for device, index, images in BUFFERS if index == 0] == [8, 2]


@pytest.mark.parametrize(
    ("images", "full", "size"),
    [
        *[(32, 32, 32), (17, 32, 32), (16, 32, 16), (9, 32, 16), (8, 32, 8), (5, 32, 8), (4, 32, 4), (1, 32, 4)],
        *[(1, 3, 1), (2, 3, 2), (3, 3, 3), (1, 1, 1), (7, 0, 7), (9, 8, 9)],
    ],
)
def test_a_batch_is_padded_to_the_full_size_its_half_quarter_or_eighth(images: int, full: int, size: int) -> None:
    assert find_bucket(images, full) == size


@pytest.mark.usefixtures("two_gpus")
def test_a_fallback_of_one_gpu_to_the_cpu_is_reported_although_the_other_works(workshop: Workshop) -> None:
    GIVEN[1] = CPU
    path = workshop.dataset / "culture.onnx"
    session = ModelSession("culture", path, 2, gpus=2)
    assert session.provider == CPU
    np.testing.assert_allclose(session.predict(BATCH), ask(path, BATCH, 0), rtol=0, atol=1e-6)
    assert sorted(BUFFERS) == [("cpu", 0, 3), ("cuda", 0, 4)]


@pytest.mark.parametrize("cores", [1, 2, 3, 16])
@pytest.mark.parametrize("views", [("identity",), ("hflip",), ("identity", "hflip"), ("hflip", "identity")])
def test_the_probabilities_are_bit_identical_for_any_number_of_cores(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, cores: int, views: tuple[View, ...]
) -> None:
    path = workshop.dataset / "culture.onnx"
    alone = ModelSession("culture", path, 2)
    wanted = np.concatenate([alone.predict(BATCH[at : at + 1], views) for at in range(len(BATCH))])
    monkeypatch.setattr(sessions, "CORES", cores)
    np.testing.assert_array_equal(ModelSession("culture", path, 2).predict(BATCH, views), wanted)


def test_a_view_equals_numpys_transform_and_several_views_give_their_mean(workshop: Workshop) -> None:
    session = ModelSession("culture", workshop.dataset / "culture.onnx", 2)
    apart = {view: session.predict(BATCH, (view,)) for view in get_args(View)}
    assert not np.array_equal(apart["identity"], apart["hflip"])
    for view, shown in VIEWS.items():
        np.testing.assert_array_equal(session.predict(shown(BATCH)), apart[view])
    mean = sum(apart.values()) / np.float32(len(apart))
    np.testing.assert_array_equal(session.predict(BATCH, tuple(apart)), mean)


def test_without_threads_the_images_are_predicted_one_by_one(
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
    np.testing.assert_array_equal(runner.predict(BATCH, ("identity",)), wanted)
    assert log.notes == [
        "model culture fails on a batch of (7, 48, 48, 3): can't start new thread; continues with batches of 3",
        "model culture fails on a batch of (3, 48, 48, 3): can't start new thread; continues with batches of 1",
    ]
    assert log.degraded == []


def test_a_stopped_session_raises_an_error_on_every_core(workshop: Workshop) -> None:
    session = ModelSession("culture", workshop.dataset / "culture.onnx", 2)
    session.stop()
    with pytest.raises(SessionError, match=r"^model culture fails on a batch of \(7, 48, 48, 3\)"):
        session.predict(BATCH)


def test_a_graph_with_other_inputs_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["image"], ["probabilities"], to=TensorProto.FLOAT)]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["images", 48, 48, 3])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["images", 48, 48, 3])
    graph = helper.make_graph(nodes, "old", [image], [answer])
    path = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    with pytest.raises(SessionError) as error:
        ModelSession("culture", path, 2)
    assert str(error.value) == (
        "model culture: old.onnx: found inputs [('image', 'tensor(uint8)', 4)]; wanted `image`, uint8 "
        "(images, height, width, 3), and `views`, int64 (views); export it again"
    )
