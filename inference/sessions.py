"""ONNX Runtime sessions: uint8 pictures in, probabilities out."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inference.errors import DeviceMemoryError, SessionError
from inference.graphs import check_graph
from inference.rules import View
from inference.views import VIEWS

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
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
                lanes = [_open_on_gpu(path, device) for device in range(gpus)]
            else:
                lanes = [_open_on_cpu(path)] * CORES
        except Exception as error:  # ONNX Runtime raises a dozen types without a common root
            raise _describe(error, f"model {name}: {path.name} does not load") from error
        inputs = [(node.name, node.type, len(node.shape)) for node in lanes[0].get_inputs()]
        if inputs != [("image", "tensor(uint8)", 4)]:
            raise SessionError(
                f"model {name}: {path.name} takes {inputs}; wanted one input `image`, uint8 (batch, height, width, 3)"
            )
        self.name = name
        self.outputs = outputs
        # What the session really uses: a missing CUDA library makes ONNX Runtime fall back without an error.
        used = {lane.get_providers()[0] for lane in lanes}
        self.provider: str = CPU if CPU in used else CUDA
        self._lanes = lanes
        self._options = onnxruntime.RunOptions()

    def predict(self, batch: NDArray[np.uint8], view: View = "identity") -> NDArray[np.float32]:
        """Probabilities (images, labels of the model's group) of a view of a batch (images, height, width, 3).

        Raises SessionError where the model fails, or answers in another shape or with what is not a probability, and
        of these DeviceMemoryError where its device has not enough memory for the batch.
        """
        parts = np.array_split(batch, min(len(self._lanes), len(batch)))
        try:
            # A single part needs no further thread: where the system gives none, a batch is halved until it is one.
            spread = map if len(parts) == 1 else LANES.map
            probabilities = np.concatenate(list(spread(partial(self._run, view=view), self._lanes, parts)))
        except Exception as error:
            raise _describe(error, f"model {self.name} fails on a batch of {batch.shape}") from error
        if probabilities.shape != (len(batch), self.outputs):
            raise SessionError(
                f"model {self.name}: found an output of {probabilities.shape}, wanted {(len(batch), self.outputs)}"
            )
        if not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1):
            raise SessionError(f"model {self.name}: its output is not a probability: NaN or outside [0, 1]")
        return np.asarray(probabilities, np.float32)

    def _run(self, lane: onnxruntime.InferenceSession, part: NDArray[np.uint8], view: View) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32]
        (probabilities,) = lane.run(None, {"image": VIEWS[view](part)}, self._options)
        return probabilities

    def stop(self) -> None:
        """End the batch in flight, from another thread, and every later one: `predict` raises SessionError."""
        self._options.terminate = True


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
