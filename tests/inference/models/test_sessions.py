"""How a batch is split and where its parts run; the CPU stands in for GPUs."""

import ctypes
import math
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from inference.basics import memory
from inference.basics.errors import DeviceLostError, DeviceMemoryError, SessionError
from inference.basics.run_log import RunLog
from inference.manifest.values import View
from inference.models import sessions, threads
from inference.models.gpus import Gpus
from inference.models.runners import Runner
from inference.models.sessions import CPU, CUDA, ModelSession, explain_cpu, make_options, name_file
from inference.models.views import show_view
from tests.conftest import ROOT, Workshop

BATCH = np.random.default_rng(0).integers(0, 256, (7, 48, 48, 3), dtype=np.uint8)
SHRINK = "memory.enable_memory_arena_shrinkage"


class Device:
    """A session that claims to use a GPU, runs on the CPU, and counts its batches."""

    def __init__(self, path: Any, options: Any, providers: list[Any], **more: Any) -> None:
        self.asked, self.more = providers, more
        self.gpu = providers[0][1]["device_id"]
        if self.gpu in REFUSED:
            raise REFUSED[self.gpu]
        self.shrunk: list[str] = []
        self.runs = 0
        self._session = onnxruntime.InferenceSession(path, options, providers=[CPU])
        MADE.append(self)

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_modelmeta(self) -> Any:
        return self._session.get_modelmeta()

    def get_providers(self) -> list[str]:
        return [GIVEN.get(self.gpu, CUDA), CPU]

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> Any:
        self.runs += 1
        self.shrunk.append(options.get_run_config_entry(SHRINK))
        BARRIER.wait(timeout=30)  # times out unless both devices run at the same time
        if self.gpu in BROKEN:
            raise BROKEN[self.gpu]
        here = onnxruntime.RunOptions()
        here.terminate = options.terminate
        return self._session.run_with_iobinding(binding, here)


MADE: list[Device] = []
GIVEN: dict[int, str] = {}  # provider by GPU
REFUSED: dict[int, Exception] = {}  # of its session's creation
BROKEN: dict[int, Exception] = {}  # of its runs
BUFFERS: list[tuple[str, int, int]] = []  # device, its index, number of images
BARRIER = threading.Barrier(2)


class Values:
    @staticmethod
    def ortvalue_from_shape_and_type(shape: Any, kind: Any, device: str, index: int) -> Any:
        BUFFERS.append((device, index, shape[0]))
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind)


class Stand:
    """ONNX Runtime as built for CUDA."""

    InferenceSession, OrtValue = Device, Values
    SessionOptions, RunOptions = onnxruntime.SessionOptions, onnxruntime.RunOptions
    __version__, __file__ = "1.26.0", "/site/onnxruntime/__init__.py"
    get_available_providers = staticmethod(lambda: [CUDA, CPU])


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for noted in (MADE, GIVEN, REFUSED, BROKEN, BUFFERS):
        noted.clear()  # type: ignore[attr-defined]
    monkeypatch.setattr(sessions, "onnxruntime", Stand)


def open_culture(workshop: Workshop, **more: int) -> ModelSession:
    return ModelSession("culture", workshop.dataset / "culture.onnx", 2, **more)


def ask(path: Path, batch: np.ndarray, view: int) -> np.ndarray:
    """Run one view in ONNX Runtime alone."""
    alone = onnxruntime.InferenceSession(path, providers=[CPU])
    (answer,) = alone.run(None, {"image": batch, "views": np.array([view])})
    return np.asarray(answer)


def spoil(session: ModelSession, lane: int, run: Any) -> None:
    """Replace the run of one lane by `run(its own run, part)`."""
    real = session._lanes[lane].run
    session._lanes[lane].run = lambda part, views: run(lambda: real(part, views), part)  # type: ignore[method-assign]


@pytest.mark.usefixtures("two_gpus")
def test_two_gpus_run_parts_of_the_batch_at_the_same_time(workshop: Workshop) -> None:
    session = open_culture(workshop, gpus=2)
    answer = session.predict(BATCH, full=8)
    for gpu, device in enumerate(MADE):
        assert device.asked == [(CUDA, {"device_id": gpu, "arena_extend_strategy": "kSameAsRequested"}), CPU]
        assert device.more == {"disabled_optimizers": ["Pad_Fusion"], "enable_fallback": 0}
    assert [device.runs for device in MADE] == [1, 1] and session.lanes == 2
    assert sorted(BUFFERS) == [("cuda", 0, 4), ("cuda", 1, 4)]
    assert session.provider == CUDA
    np.testing.assert_allclose(answer, ask(workshop.dataset / "culture.onnx", BATCH, 0), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("two_gpus")
def test_every_batch_of_a_gpu_is_full_and_uses_the_same_buffer(workshop: Workshop) -> None:
    path = workshop.dataset / "culture.onnx"
    session = open_culture(workshop, gpus=2)
    for images in (16, 15, 3, 1, 9):
        batch = np.concatenate([BATCH] * 3)[:images]
        answer = session.predict(batch, ("identity", "hflip"), full=16)
        wanted = (ask(path, batch, 0) + ask(path, batch, 1)) / 2
        np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-6)
    assert sorted(BUFFERS) == [("cuda", 0, 8), ("cuda", 1, 8)]


@pytest.mark.usefixtures("two_gpus")
def test_every_run_on_a_gpu_gives_its_memory_back(workshop: Workshop) -> None:
    session = open_culture(workshop, gpus=2)
    session.warm_up(BATCH, ("identity",), 7)
    for _ in range(2):
        session.predict(BATCH)
    assert [device.shrunk for device in MADE] == [["gpu:0"] * 3, ["gpu:1"] * 3]


def test_a_run_on_the_cpu_keeps_its_memory(workshop: Workshop) -> None:
    session = open_culture(workshop)
    options = session._lanes[0]._options
    with pytest.raises(RuntimeError, match=SHRINK):
        options.get_run_config_entry(SHRINK)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("views", [("identity",), ("identity", "hflip")])
def test_a_gpu_warms_up_once_for_each_number_of_images_and_of_views(
    views: tuple[View, ...], workshop: Workshop
) -> None:
    session = open_culture(workshop, gpus=2)
    for _ in range(2):
        session.warm_up(BATCH, views, 8)
    assert [device.runs for device in MADE] == [1, 1] and {images for *_, images in BUFFERS} == {4}
    session.warm_up(BATCH[:4], views, 4)
    session.warm_up(BATCH[:3], views, 4)
    assert [device.runs for device in MADE] == [2, 2] and {images for *_, images in BUFFERS} == {4, 2}
    session.warm_up(BATCH, (*views, "identity"), 8)
    assert [device.runs for device in MADE] == [3, 3]
    session.predict(BATCH[:2], views, 2)
    session.warm_up(BATCH[:2], views, 2)
    assert [device.runs for device in MADE] == [4, 4], "a prediction warms up too"


def test_the_cpu_warms_up_once_with_an_image_per_lane(workshop: Workshop) -> None:
    session = open_culture(workshop, cores=2)
    parts: list[tuple[int, int]] = []
    for lane in session._lanes:

        def run(part: np.ndarray, views: Sequence[View], real: Any = lane.run) -> Any:
            parts.append((len(part), len(views)))
            return real(part, views)

        lane.run = run  # type: ignore[method-assign]
    for full in (8, 8, 4):
        session.warm_up(BATCH, ("identity", "hflip"), full)
    assert parts == [(1, 1), (1, 1)]


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_whose_cuda_library_does_not_load_is_an_error_with_the_reason(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime prints the reason and opens the session on the CPU."""

    def load(name: str) -> None:
        assert name == "/site/onnxruntime/capi/libonnxruntime_providers_cuda.so"
        raise OSError("libcublasLt.so.12: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(sessions, "load_libraries", lambda: ("libcublasLt.so.12",))
    GIVEN[1] = CPU
    with pytest.raises(DeviceLostError) as error:
        open_culture(workshop, gpus=2)
    assert str(error.value) == (
        "libcublasLt.so.12 cannot be loaded; install CUDA 12 and cuDNN 9, or pack with `--wheels cudnn` "
        "(libcublasLt.so.12: cannot open shared object file: No such file or directory)"
    )


@pytest.mark.usefixtures("two_gpus")
def test_the_reason_why_a_gpu_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    assert explain_cpu(()) == "onnxruntime 1.26.0 refused it: no reason given; check that it supports this GPU"
    assert explain_cpu(("libcufft.so.11", "libcudnn.so.9")) == (
        "libcufft.so.11, libcudnn.so.9 cannot be loaded; install CUDA 12 and cuDNN 9, or pack with `--wheels cudnn`"
    )

    def load(name: str) -> None:
        raise OSError("undefined symbol: cudaStreamGetId")

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert explain_cpu(()) == (
        "onnxruntime 1.26.0 refused it: undefined symbol: cudaStreamGetId; check that it supports this GPU"
    )
    monkeypatch.setattr(Stand, "get_available_providers", staticmethod(lambda: [CPU]))
    assert explain_cpu(("libcudnn.so.9",)) == (
        "onnxruntime 1.26.0 is built without CUDA; install onnxruntime-gpu in its place, "
        "or pack it with `build_kernel.py pack --wheels`"
    )


@pytest.mark.usefixtures("two_gpus")
def test_a_runtime_without_cuda_refuses_the_gpu_before_it_opens_a_session(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stand, "get_available_providers", staticmethod(lambda: [CPU]))
    with pytest.raises(DeviceLostError, match=r"^onnxruntime 1\.26\.0 is built without CUDA"):
        open_culture(workshop, gpus=1)
    assert MADE == []


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 35: CUDA driver version is insufficient", DeviceLostError),
        ("CUDA failure 2: out of memory", DeviceMemoryError),
        ("This is an invalid model", SessionError),
    ],
)
def test_a_model_that_does_not_open_on_a_gpu_says_whether_the_gpu_is_lost(
    text: str, kind: type[SessionError], workshop: Workshop
) -> None:
    REFUSED[1] = RuntimeError(text)
    with pytest.raises(SessionError) as error:
        open_culture(workshop, gpus=2)
    assert type(error.value) is kind and str(error.value) == f"model culture: culture.onnx does not load: {text}"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered", DeviceLostError),
        ("CUDA failure 2: out of memory", DeviceMemoryError),
        ("CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED", SessionError),
    ],
)
def test_a_run_that_fails_on_a_gpu_says_whether_the_gpu_is_lost(
    text: str, kind: type[SessionError], workshop: Workshop
) -> None:
    session = open_culture(workshop, gpus=2)
    BROKEN[1] = RuntimeError(text)
    with pytest.raises(SessionError) as error:
        session.predict(BATCH, full=8)
    assert type(error.value) is kind
    assert str(error.value) == f"model culture fails on a batch of (8, 48, 48, 3): {text}"


@pytest.mark.parametrize("failing", [0, 1])
def test_no_lane_still_runs_after_another_has_failed(failing: int, workshop: Workshop) -> None:
    session = open_culture(workshop, cores=3)
    running: list[int] = []

    def fail(real: Any, part: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory")

    def wait(real: Any, part: np.ndarray) -> np.ndarray:
        running.append(1)
        time.sleep(0.1)
        running.pop()
        return np.asarray(real())

    for lane in range(3):
        spoil(session, lane, fail if lane == failing else wait)
    with pytest.raises(DeviceMemoryError):
        session.predict(BATCH)
    assert running == []


def test_each_part_has_a_row_for_each_of_its_images(workshop: Workshop) -> None:
    """A surplus row of one lane must not hide that another lane has too few."""
    session = open_culture(workshop, cores=2)
    spoil(session, 0, lambda run, part: np.concatenate([run(), run()]))
    with pytest.raises(SessionError, match=r"^model culture: found an output of \(8, 2\); wanted \(4, 2\)$"):
        session.predict(BATCH)
    session = open_culture(workshop, cores=2)
    spoil(session, 0, lambda run, part: np.concatenate([run(), run()[:1]]))
    spoil(session, 1, lambda run, part: run()[:-1])
    with pytest.raises(SessionError, match=r"^model culture: found an output of \(5, 2\); wanted \(4, 2\)$"):
        session.predict(BATCH)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
def test_a_value_that_is_no_probability_is_an_error(value: float, workshop: Workshop) -> None:
    session = open_culture(workshop, cores=1)

    def spoilt(run: Any, part: np.ndarray) -> np.ndarray:
        answer = np.array(run())
        answer[3, 1] = value
        return answer

    spoil(session, 0, spoilt)
    with pytest.raises(
        SessionError, match=r"^model culture: its output is not a probability: NaN or outside \[0, 1\]$"
    ):
        session.predict(BATCH)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_bounds_are_probabilities(value: float, workshop: Workshop) -> None:
    session = open_culture(workshop, cores=1)
    spoil(session, 0, lambda run, part: run() * 0 + np.float32(value))
    assert (session.predict(BATCH) == value).all()


@pytest.mark.parametrize("cores", [1, 2, 3, 16])
@pytest.mark.parametrize("views", [("identity",), ("hflip",), ("identity", "hflip"), ("hflip", "identity")])
def test_the_probabilities_are_bit_identical_for_any_number_of_cores(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, cores: int, views: tuple[View, ...]
) -> None:
    alone = open_culture(workshop)
    assert alone.lanes == sessions.CORES
    wanted = np.concatenate([alone.predict(BATCH[at : at + 1], views) for at in range(len(BATCH))])
    np.testing.assert_array_equal(open_culture(workshop, cores=cores).predict(BATCH, views), wanted)
    monkeypatch.setattr(sessions, "CORES", cores)
    assert open_culture(workshop).lanes == cores


def test_a_view_equals_numpys_transform_and_several_views_give_their_mean(workshop: Workshop) -> None:
    session = open_culture(workshop)
    apart = {view: session.predict(BATCH, (view,)) for view in session.cuts}
    assert not np.array_equal(apart["identity"], apart["hflip"])
    np.testing.assert_array_equal(session.predict(BATCH), apart["identity"])
    for view, scores in apart.items():
        np.testing.assert_array_equal(session.predict(show_view(BATCH, view, (48, 48))), scores)
    mean = sum(apart.values()) / np.float32(len(apart))
    np.testing.assert_array_equal(session.predict(BATCH, tuple(apart)), mean)


def test_without_threads_the_images_are_predicted_one_by_one(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    log = RunLog()
    wanted = open_culture(workshop, cores=2).predict(BATCH)
    monkeypatch.setattr(sessions, "THREADS", threads.Threads())
    monkeypatch.setattr(threads.Thread, "start", start)
    runner = Runner(lambda *_: open_culture(workshop, cores=2), Gpus([], log), len(BATCH), log)
    np.testing.assert_array_equal(runner.predict(BATCH, ("identity",)), wanted)
    assert log.notes == [
        "model culture fails on a batch of (7, 48, 48, 3): can't start new thread; continues with batches of 3",
        "model culture fails on a batch of (3, 48, 48, 3): can't start new thread; continues with batches of 1",
    ]
    assert log.degraded == []


def test_a_stopped_session_refuses_every_batch(workshop: Workshop) -> None:
    session = open_culture(workshop, cores=3)
    session.stop()
    with pytest.raises(SessionError, match=r"^model culture fails on a batch of \(7, 48, 48, 3\): .*terminate"):
        session.predict(BATCH)
    for lane in session._lanes:
        with pytest.raises(Exception, match="terminate"):
            lane.run(BATCH, np.array([0]))


def save_graph(path: Path, graph: onnx.GraphProto, **notes: str) -> Path:
    """Write a graph in the form of an export; `notes`: its metadata, by default those of a new model."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, notes or {"cuts": '["identity", "hflip"]', "merge": "mean"})
    onnx.save(model, path)
    return path


def write_view_model(path: Path, **notes: str) -> Path:
    """Write a model whose score is 0.1 times the sum of the indices of its views, plus 0.01 times their number."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["images", 4, 4, 3])
    views = helper.make_tensor_value_info("views", TensorProto.INT64, ["views"])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["images", 1])
    nodes = [
        helper.make_node("Cast", ["views"], ["places"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["places", "tenth"], ["tenths"]),
        helper.make_node("Add", ["tenths", "hundredth"], ["each"]),
        helper.make_node("ReduceSum", ["each"], ["whole"], keepdims=1),
        helper.make_node("Shape", ["image"], ["images"], start=0, end=1),
        helper.make_node("Concat", ["images", "one"], ["shape"], axis=0),
        helper.make_node("Expand", ["whole", "shape"], ["probabilities"]),
    ]
    fixed = [
        helper.make_tensor("tenth", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("hundredth", TensorProto.FLOAT, [], [0.01]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
    ]
    return save_graph(path, helper.make_graph(nodes, "views", [image, views], [answer], fixed), **notes)


def test_a_view_is_its_place_in_the_cuts_whatever_its_scale(tmp_path: Path) -> None:
    cuts = ("vflip", "top_left+rot90", "identity", "top_left")
    notes = {"cuts": '["vflip", "top_left+rot90", "identity", "top_left"]', "merge": "maximum"}
    session = ModelSession("m", write_view_model(tmp_path / "m.onnx", **notes), 1, cuts=cuts, merge="maximum")
    wanted = {
        ("vflip",): 0.01,
        ("scale_125+vflip",): 0.01,
        ("top_left+rot90",): 0.11,
        ("identity",): 0.21,
        ("scale_400",): 0.21,
        ("scale_101", "scale_101+vflip"): 0.22,
        ("top_left", "top_left+rot90", "identity"): 0.63,
    }
    for views, score in wanted.items():
        found = session.predict(np.zeros((3, 4, 4, 3), np.uint8), views)
        np.testing.assert_allclose(found, np.full((3, 1), score), rtol=1e-5, err_msg=str(views))
    assert (session.cuts, session.merge) == (cuts, "maximum")


@pytest.mark.parametrize(
    ("notes", "found"),
    [
        ({"cuts": '["identity"]', "merge": "mean"}, '`cuts` ["identity"] and `merge` mean'),
        ({"cuts": '["hflip", "identity"]', "merge": "mean"}, '`cuts` ["hflip", "identity"] and `merge` mean'),
        ({"cuts": '["identity", "hflip"]', "merge": "maximum"}, '`cuts` ["identity", "hflip"] and `merge` maximum'),
        ({"cuts": '["identity", "hflip"]'}, '`cuts` ["identity", "hflip"] and `merge` missing'),
        ({"other": ""}, "`cuts` missing and `merge` missing"),
    ],
)
def test_a_graph_that_was_exported_for_other_views_is_refused(
    notes: dict[str, str], found: str, tmp_path: Path
) -> None:
    path = write_view_model(tmp_path / "m.onnx", **notes)
    with pytest.raises(SessionError) as error:
        ModelSession("m", path, 1)
    assert str(error.value) == (
        f'model m: m.onnx: found {found}; wanted `cuts` ["identity", "hflip"] and `merge` mean; export it again'
    )


def write_slow_model(path: Path) -> Path:
    """Write a model of many small operators, which takes about a second per image."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["images", 4, 4, 3])
    views = helper.make_tensor_value_info("views", TensorProto.INT64, ["views"])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["images", 2])
    trip = helper.make_tensor("trip", TensorProto.INT64, [], [10_000_000])
    held = helper.make_tensor_value_info("held", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Relu", ["held"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            held,
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Cast", ["image"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["number"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["mean"], keepdims=1),
        helper.make_node("Loop", ["trip", "", "flat"], ["looped"], body=body),
        helper.make_node("Slice", ["looped", "starts", "ends", "axes"], ["cut"]),
        helper.make_node("Sigmoid", ["cut"], ["probabilities"]),
    ]
    fixed = [
        helper.make_tensor("starts", TensorProto.INT64, [1], [0]),
        helper.make_tensor("ends", TensorProto.INT64, [1], [2]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
    ]
    return save_graph(path, helper.make_graph(nodes, "slow", [image, views], [answer], [trip, *fixed]))


def test_a_stop_from_another_thread_ends_every_lane_at_once(tmp_path: Path) -> None:
    """Ten million operators per lane take several seconds."""
    session = ModelSession("slow", write_slow_model(tmp_path / "slow.onnx"), 2, cores=2)
    alarm = threading.Timer(0.3, session.stop)
    alarm.start()
    started = time.monotonic()
    with pytest.raises(SessionError, match=r"^model slow fails on a batch of \(2, 4, 4, 3\): .*terminate"):
        session.predict(np.zeros((2, 4, 4, 3), np.uint8))
    assert 0.2 < time.monotonic() - started < 1.5
    alarm.join()


def test_a_graph_with_other_inputs_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["image"], ["probabilities"], to=TensorProto.FLOAT)]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["images", 48, 48, 3])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["images", 48, 48, 3])
    graph = helper.make_graph(nodes, "old", [image], [answer])
    path = save_graph(tmp_path / "old.onnx", graph)
    with pytest.raises(SessionError) as error:
        ModelSession("culture", path, 2)
    assert str(error.value) == (
        "model culture: old.onnx: found inputs [('image', 'tensor(uint8)', 4)]; wanted `image`, uint8 "
        "(images, height, width, 3), and `views`, int64 (views); export it again"
    )


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(SessionError) as error:
        ModelSession("m", tmp_path / "m.onnx", 2)
    assert str(error.value).startswith(f"model m: m.onnx does not load: {tmp_path}/m.onnx: not an ONNX file: ")


@pytest.mark.skipif(sys.platform != "linux", reason="the file system refuses such a name")
def test_a_bundle_in_a_folder_whose_name_is_not_utf_8(workshop: Workshop, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    path = Path(shutil.copy(workshop.dataset / "culture.onnx", folder))
    np.testing.assert_array_equal(ModelSession("m", path, 2).predict(BATCH), open_culture(workshop).predict(BATCH))
    with name_file(path) as name:
        assert Path(name).read_bytes() == path.read_bytes()
    with pytest.raises(OSError, match="No such file"), name_file(folder / "none.onnx"):
        pass


def test_a_file_of_a_usual_name_is_opened_by_it(tmp_path: Path) -> None:
    with name_file(tmp_path / "für.onnx") as name:
        assert name == f"{tmp_path}/für.onnx"


def test_the_options_of_all_sessions() -> None:
    options = make_options()
    assert options.get_session_config_entry("session.load_model_format") == "ONNX"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_the_threads_of_an_operator(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workshop.dataset / "culture.onnx"
    monkeypatch.setattr(sessions, "CORES", 3)
    for given, wanted in ((0, 3), (2, 2)):
        assert sessions.open_on_cpu(path, given).get_session_options().intra_op_num_threads == wanted
    assert sessions.open_on_cpu(path).get_session_options().intra_op_num_threads == 3
    lane = open_culture(workshop)._lanes[0]
    assert lane._session.get_session_options().intra_op_num_threads == 1
    assert lane._session.get_session_options().enable_cpu_mem_arena, "this process has no limit"


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The free memory under a limit, which a test may change."""
    left = {"bytes": 1e9}
    for place in (memory, sessions):
        monkeypatch.setattr(place, "measure_free", lambda: left["bytes"])
    return left


def test_a_model_is_not_loaded_if_too_little_memory_is_left(
    workshop: Workshop, free: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime would end the process."""
    opened: list[Any] = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *given, **more: (opened.append(1), real(*given, **more))[1]
    )
    size = (workshop.dataset / "culture.onnx").stat().st_size
    # 32 MB, three times the file, a stack for each of three lanes and for the operators' thread
    free["bytes"] = 32e6 + 3 * size + 4 * 8e6
    session = open_culture(workshop, cores=3)
    assert not session._lanes[0]._session.get_session_options().enable_cpu_mem_arena
    free["bytes"] -= 1
    with pytest.raises(DeviceMemoryError) as error:
        open_culture(workshop, cores=3)
    assert len(opened) == 1
    needed = round((32e6 + 3 * size + 4 * 8e6) / 1e6)
    assert str(error.value) == (
        f"model culture: culture.onnx does not load: found {needed} MB free; wanted {needed} MB to load or run a model"
    )


def test_a_stacker_needs_memory_for_the_threads_of_its_operators(workshop: Workshop, free: dict[str, float]) -> None:
    path = workshop.dataset / "culture.onnx"
    free["bytes"] = 32e6 + 3 * path.stat().st_size + 2 * 8e6
    sessions.open_on_cpu(path, threads=2)
    with pytest.raises(MemoryError):
        sessions.open_on_cpu(path, threads=3)


def test_a_batch_is_not_run_if_too_little_memory_is_left(workshop: Workshop, free: dict[str, float]) -> None:
    session, views = open_culture(workshop, cores=2), ("identity", "hflip")
    free["bytes"] = 32e6 + 64 * 2 * BATCH.nbytes
    session.predict(BATCH, views)
    free["bytes"] -= 1
    with pytest.raises(
        DeviceMemoryError, match=r"^model culture fails on a batch of \(7, 48, 48, 3\): found 38 MB free"
    ):
        session.predict(BATCH, views)
    session.predict(BATCH)


@pytest.mark.usefixtures("two_gpus")
def test_a_batch_on_a_gpu_needs_little_memory_of_the_host(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_culture(workshop, gpus=2)
    monkeypatch.setattr(memory, "measure_free", lambda: 33e6)
    session.predict(BATCH)


def test_threads_share_the_memory_of_a_limited_process() -> None:
    """With glibc's default, eight threads that allocate reserve 64 MB of address space each."""
    code = """
        import resource, sys, threading
        from inference.basics.memory import measure_free, share_arena
        if sys.argv[1] != "unlimited":
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        share_arena()
        def read_size():
            return int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) // 1000
        before, barrier = read_size(), threading.Barrier(9)
        def work():
            held = [bytes(1000) for _ in range(1000)]
            barrier.wait(10)
            barrier.wait(10)
        for _ in range(8):
            threading.Thread(target=work, daemon=True).start()
        barrier.wait(10)
        print(read_size() - before)
        barrier.wait(10)
    """
    grown = {}
    for limit in ("limited", "unlimited"):
        command = [sys.executable, "-c", textwrap.dedent(code), limit]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        grown[limit] = int(done.stdout)
    assert grown["limited"] < 8 * 8 + 64 < 8 * 64 < grown["unlimited"], "a stack of 8 MB each"
    assert memory.measure_free() == math.inf
