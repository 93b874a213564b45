"""ONNX Runtime sessions, from uint8 images to probabilities."""

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
# How ONNX Runtime, CUDA and its libraries report it; there is no exception type or error code.
MEMORY_MESSAGES = (
    "out of memory",
    "failed to allocate memory",
    "bad allocation",
    "bad_alloc",
    "alloc_failed",
    "can't start new thread",
)
# Only the cores that this process may use: further lanes would only take memory.
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
MOST_GPUS = 16
# Shared by all sessions, which run one at a time; each thread starts when it is first needed.
LANES = ThreadPoolExecutor(max(CORES, MOST_GPUS), thread_name_prefix="lane")


class ModelSession:
    """One model on all GPUs or on the CPU; each lane runs a part of the batch.

    A lane is one GPU, or one CPU core, which runs its part through the whole network. If all cores shared each
    operator instead, they would wait for one another after each, and for operators that use a single thread.
    """

    def __init__(self, name: str, path: Path, outputs: int, gpus: int = 0) -> None:
        """Load `path` for the model `name` with `outputs` labels. Raises SessionError naming both.

        `gpus`: number to request; `provider` shows whether they are used.
        """
        try:
            check_graph(path)
        except SessionError as error:
            raise SessionError(f"model {name}: {path.name} does not load: {error}") from error
        try:
            # Requesting CUDA without a GPU prints two error lines per model.
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
                f"model {name}: {path.name}: found inputs {found}; wanted `image`, uint8 (images, height, width, 3), "
                "and `views`, int64 (views); export it again"
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
        """Return the mean over views of the probabilities, (images, labels), of a batch (images, height, width, 3).

        `full`: size of a full batch. On a GPU, a batch is padded with black images to this size, its half, quarter or
        eighth, because CUDA searches for the best algorithms again for every new size.

        Raises SessionError: the model fails, or its output has a wrong shape or is not a probability;
        DeviceMemoryError: out of memory on its device.
        """
        images = len(batch)
        if self.provider == CUDA:
            batch = _fill_up(batch, find_bucket(images, full))
        parts = np.array_split(batch, min(len(self._lanes), len(batch)))
        try:
            # A single part runs in this thread: a batch is halved down to it if the system has no thread left.
            spread = map if len(parts) == 1 else LANES.map
            work = zip(self._lanes, parts, strict=False)
            answers = list(spread(lambda pair: pair[0].run(pair[1], views, self._options), work))
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
        """Return the number of parts of a batch that run in parallel."""
        return len(self._lanes)

    def stop(self) -> None:
        """Interrupt the current batch, from another thread, and refuse later ones: `predict` raises SessionError."""
        self._options.terminate = True


class Lane:
    """A session on one device, with a buffer for its input there."""

    def __init__(self, session: onnxruntime.InferenceSession, gpu: int = 0) -> None:
        """`gpu`: index of the GPU that the session was opened for, if any."""
        self._session, self._binding = session, session.io_binding()
        self._image: onnxruntime.OrtValue | None = None
        # The provider in use: if a CUDA library is missing, ONNX Runtime falls back to the CPU without an error.
        self.provider: str = session.get_providers()[0]
        self._place = ("cuda", gpu) if self.provider == CUDA else ("cpu", 0)

    def describe_inputs(self) -> list[tuple[str, str, int]]:
        """Return name, type and number of dimensions of each input."""
        return [(node.name, node.type, len(node.shape)) for node in self._session.get_inputs()]

    def run(
        self, part: NDArray[np.uint8], views: Sequence[View], options: onnxruntime.RunOptions
    ) -> NDArray[np.float32]:
        """Run the model on a part of a batch; the input buffer is reused for parts of equal shape."""
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
    """Return the size to which a batch is padded: the smallest of `full`, its half, quarter and eighth that fits."""
    sizes = [-(-full // part) for part in (8, 4, 2, 1)]
    return next((size for size in sizes if size >= images), images)


def _fill_up(batch: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if len(batch) == size:  # nearly always; avoids a copy
        return batch
    return np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), np.uint8)])


def make_options() -> onnxruntime.SessionOptions:
    """Create the options used for all sessions of a bundle."""
    options = onnxruntime.SessionOptions()
    # check_graph reads the file as ONNX; without this, ONNX Runtime may detect its own format instead.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Each session has its own threads; spinning ones would take the cores from the session that is running.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open_on_gpu(path: Path, device: int) -> onnxruntime.InferenceSession:
    # Allocate the requested size, not the next power of two: many models share a device.
    cuda = (CUDA, {"device_id": device, "arena_extend_strategy": "kSameAsRequested"})
    # Some cuDNN versions refuse the asymmetric convolution that Pad_Fusion creates (onnxruntime issue 26274).
    return onnxruntime.InferenceSession(path, make_options(), providers=[cuda, CPU], disabled_optimizers=["Pad_Fusion"])


def _open_on_cpu(path: Path) -> onnxruntime.InferenceSession:
    options = make_options()
    options.intra_op_num_threads = 1  # each lane is a thread
    return onnxruntime.InferenceSession(path, options, providers=[CPU])


def explain_cpu(missing: tuple[str, ...]) -> str:
    """Explain why a present GPU is not used, and what to do; `missing`: CUDA libraries that could not be loaded."""
    if CUDA not in onnxruntime.get_available_providers():
        return (
            f"onnxruntime {onnxruntime.__version__} is built without CUDA; install onnxruntime-gpu in its place, "
            "or pack it with `build_kernel.py pack --wheels`"
        )
    if missing:
        return f"{', '.join(missing)} cannot be loaded; install CUDA 12 and cuDNN 9, or pack with `--wheels cudnn`"
    return f"onnxruntime {onnxruntime.__version__} refused it, with the reason above; check that it supports this GPU"


def _describe(error: Exception, what: str) -> SessionError:
    reason = " ".join(str(error).split())[:300]
    no_memory = isinstance(error, MemoryError) or any(message in reason.lower() for message in MEMORY_MESSAGES)
    return (DeviceMemoryError if no_memory else SessionError)(f"{what}: {reason}")
