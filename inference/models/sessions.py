"""ONNX Runtime sessions: uint8 pictures in, probabilities out."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inference.basics.errors import DeviceMemoryError, SessionError
from inference.manifest.values import View
from inference.models.graphs import check_graph
from inference.models.views import VIEWS

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
INPUTS = [("image", "tensor(uint8)", 4), ("views", "tensor(int64)", 1)]
VIEW_NAMES = list(VIEWS)
# How ONNX Runtime, CUDA and its libraries say it; there is no type or code for it.
MEMORY_MESSAGES = (
    "out of memory",
    "failed to allocate memory",
    "bad allocation",
    "bad_alloc",
    "alloc_failed",
    "can't start new thread",
)
# Those that we may use: where a limit leaves one of many, further lanes would only take memory.
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
MOST_GPUS = 16
# Shared by all sessions, which take turns; a thread begins when it is first needed.
LANES = ThreadPoolExecutor(max(CORES, MOST_GPUS), thread_name_prefix="lane")


class ModelSession:
    """One model, on every GPU that there is or on the CPU; each lane runs a part of the batch.

    On GPUs a lane is one of them. On the CPU it is a core, which runs its part through the whole network: where the
    cores share every operator instead, they wait for one another after each, and for those that know one thread only.
    """

    def __init__(self, name: str, path: Path, outputs: int, gpus: int = 0) -> None:
        """Load `path` for the model `name`, whose head has `outputs` labels; raises SessionError naming both.

        `gpus`: ask for so many; `provider` then says whether they were given.
        """
        try:
            check_graph(path)
        except SessionError as error:
            raise SessionError(f"model {name}: {path.name} does not load: {error}") from error
        try:
            # Asked for in vain, a GPU costs two lines of errors a model, so only whoever has one asks.
            if gpus and CUDA in onnxruntime.get_available_providers():
                lanes = [Lane(_open_on_gpu(path, device), device) for device in range(gpus)]
            else:
                session = _open_on_cpu(path)
                lanes = [Lane(session) for _ in range(CORES)]
        except Exception as error:  # ONNX Runtime raises a dozen types without a common root
            raise _describe(error, f"model {name}: {path.name} does not load") from error
        found = lanes[0].describe_inputs()
        if found != INPUTS:
            raise SessionError(
                f"model {name}: {path.name} takes {found}; wanted `image`, uint8 (images, height, width, 3), and "
                "`views`, int64 (views): export it again"
            )
        self.name = name
        self.outputs = outputs
        used = {lane.provider for lane in lanes}
        self.provider: str = CPU if CPU in used else CUDA
        self._lanes = lanes
        self._options = onnxruntime.RunOptions()

    def predict(
        self, batch: NDArray[np.uint8], views: Sequence[View] = ("identity",), full: int = 0
    ) -> NDArray[np.float32]:
        """Probabilities (images, labels of the model's group) of a batch (images, height, width, 3), mean over views.

        `full`: images of a whole batch. A GPU is given as many, its half, its quarter or its eighth, filled up with
        black pictures, since it would look for the best algorithms again for every other number.

        Raises SessionError where the model fails, or answers in another shape or with what is not a probability, and
        of these DeviceMemoryError where its device has not enough memory for the batch.
        """
        images = len(batch)
        if self.provider == CUDA:
            batch = _fill_up(batch, find_bucket(images, full))
        parts = np.array_split(batch, min(len(self._lanes), len(batch)))
        try:
            # A single part needs no further thread: where the system gives none, a batch is halved until it is one.
            spread = map if len(parts) == 1 else LANES.map
            work = zip(self._lanes, parts, strict=False)
            answers = list(spread(lambda one: one[0].run(one[1], views, self._options), work))
            probabilities = np.concatenate(answers)[:images]
        except Exception as error:
            raise _describe(error, f"model {self.name} fails on a batch of {batch.shape}") from error
        if probabilities.shape != (images, self.outputs):
            raise SessionError(
                f"model {self.name}: found an output of {probabilities.shape}; wanted {(images, self.outputs)}"
            )
        if not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1):
            raise SessionError(f"model {self.name}: its output is not a probability: NaN or outside [0, 1]")
        return probabilities

    @property
    def lanes(self) -> int:
        """How many parts of a batch run at a time."""
        return len(self._lanes)

    def stop(self) -> None:
        """End the batch in flight, from another thread, and every later one: `predict` raises SessionError."""
        self._options.terminate = True


class Lane:
    """A session on one device, and the buffers there that its batches go in and out by."""

    def __init__(self, session: onnxruntime.InferenceSession, gpu: int = 0) -> None:
        """`gpu`: which of them the session was opened for, if for one."""
        self._session, self._binding = session, session.io_binding()
        self._image: onnxruntime.OrtValue | None = None
        # What the session really uses: a missing CUDA library makes ONNX Runtime fall back without an error.
        self.provider: str = session.get_providers()[0]
        self._place = ("cuda", gpu) if self.provider == CUDA else ("cpu", 0)

    def describe_inputs(self) -> list[tuple[str, str, int]]:
        """Name, type and number of dimensions of each input."""
        return [(node.name, node.type, len(node.shape)) for node in self._session.get_inputs()]

    def run(
        self, part: NDArray[np.uint8], views: Sequence[View], options: onnxruntime.RunOptions
    ) -> NDArray[np.float32]:
        """The model's answer to a part of a batch; the buffer for it stays while the parts are of one shape."""
        if self._image is None or tuple(self._image.shape()) != part.shape:
            self._image = onnxruntime.OrtValue.ortvalue_from_shape_and_type(part.shape, np.uint8, *self._place)
            self._binding.bind_ortvalue_input("image", self._image)
        self._image.update_inplace(np.ascontiguousarray(part))
        self._binding.bind_cpu_input("views", np.array([VIEW_NAMES.index(view) for view in views], np.int64))
        self._binding.bind_output("probabilities")
        self._session.run_with_iobinding(self._binding, options)
        answer: NDArray[np.float32]
        (answer,) = self._binding.copy_outputs_to_cpu()
        return answer


def find_bucket(images: int, full: int) -> int:
    """The size that a batch of so many images is filled up to: `full`, or its half, quarter or eighth."""
    sizes = [-(-full // part) for part in (8, 4, 2, 1)]
    return next((size for size in sizes if size >= images), images)


def _fill_up(batch: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if len(batch) == size:  # nearly always: no copy of it
        return batch
    return np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), np.uint8)])


def make_options() -> onnxruntime.SessionOptions:
    """What every session of a bundle is opened with."""
    options = onnxruntime.SessionOptions()
    # What was checked is what is loaded: by its content ONNX Runtime might take the file for its own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Each session has its own threads; those that wait by spinning take the cores from the session whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open_on_gpu(path: Path, device: int) -> onnxruntime.InferenceSession:
    # Grown by what is asked for, not to the next power of two: many models share a device.
    cuda = (CUDA, {"device_id": device, "arena_extend_strategy": "kSameAsRequested"})
    # Fused into an asymmetric convolution, padding is refused by some cuDNN versions (onnxruntime issue 26274).
    return onnxruntime.InferenceSession(path, make_options(), providers=[cuda, CPU], disabled_optimizers=["Pad_Fusion"])


def _open_on_cpu(path: Path) -> onnxruntime.InferenceSession:
    options = make_options()
    options.intra_op_num_threads = 1  # each lane is a thread
    return onnxruntime.InferenceSession(path, options, providers=[CPU])


def explain_cpu(missing: tuple[str, ...]) -> str:
    """Why a GPU that is there is not used, and what to do; `missing`: CUDA libraries that could not be loaded."""
    if CUDA not in onnxruntime.get_available_providers():
        return (
            f"this onnxruntime {onnxruntime.__version__} is built without CUDA; install onnxruntime-gpu in its place, "
            "or carry it with `build_kernel.py pack --wheels`"
        )
    if missing:
        return f"{', '.join(missing)} cannot be loaded; install CUDA 12 and cuDNN 9, or pack with `--wheels cudnn`"
    return f"onnxruntime {onnxruntime.__version__} refused it, with its reason above; is it built for this GPU?"


def _describe(error: Exception, what: str) -> SessionError:
    told = " ".join(str(error).split())[:300]
    lacks_memory = isinstance(error, MemoryError) or any(message in told.lower() for message in MEMORY_MESSAGES)
    return (DeviceMemoryError if lacks_memory else SessionError)(f"{what}: {told}")
