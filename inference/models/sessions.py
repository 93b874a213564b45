"""ONNX Runtime sessions, from uint8 images to probabilities."""

import ctypes
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inference.basics.cores import count_cores
from inference.basics.errors import DeviceLostError, SessionError
from inference.basics.memory import measure_free, require_free, share_arena
from inference.manifest.values import Merge, View, split_view
from inference.models.faults import describe_fault
from inference.models.graphs import check_graph
from inference.models.threads import Threads
from inference.models.wheels import load_libraries

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
INPUTS = [("image", "tensor(uint8)", 4), ("views", "tensor(int64)", 1)]
SHRINK = "memory.enable_memory_arena_shrinkage"  # onnxruntime_run_options_config_keys.h
# Upper estimates of the memory that ONNX Runtime takes, checked only if this process has a limit.
COPIES = 3  # of a file's weights while it is loaded
ACTIVATIONS = 64  # bytes per byte of the images; resnet34 takes about 60
STACK = 8_000_000  # bytes of a thread
CORES = count_cores()
THREADS = Threads()


class ModelSession:
    """One model on all GPUs or on the CPU; each lane runs a part of the batch.

    A lane is one GPU, or one CPU core, which runs its part through the whole network. If all cores shared each
    operator instead, they would wait for one another after each, and for operators that use a single thread.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        outputs: int,
        gpus: int = 0,
        cores: int = 0,
        bounded: bool = True,
        cuts: Sequence[str] = ("identity", "hflip"),
        merge: Merge = "mean",
    ) -> None:
        """Load `path` for the model `name` with `outputs` scores, on `gpus` GPUs, or on the CPU if that is 0.

        `cores`: number of lanes on the CPU; 0: one per core. Fewer take less memory. `bounded`: the scores are
        probabilities; else any finite numbers. `cuts`, `merge`: those of the model in the manifest.

        Raises SessionError: the model does not load, or was exported for other views; DeviceMemoryError: out of memory;
        DeviceLostError: ONNX Runtime cannot use the GPUs.
        """
        what = f"model {name}: {path.name} does not load"
        try:
            check_graph(path)
        except SessionError as error:
            raise SessionError(f"{what}: {error}") from error
        try:
            self._lanes = _open_gpu_lanes(path, gpus) if gpus else _open_cpu_lanes(path, cores or CORES)
        except DeviceLostError:  # no fault of this model
            raise
        except Exception as error:  # ONNX Runtime raises a dozen types without a common root
            raise describe_fault(error, what) from error
        found = self._lanes[0].describe_inputs()
        if found != INPUTS:
            raise SessionError(
                f"model {name}: {path.name}: found inputs {found}; wanted `image`, uint8 (images, height, width, 3), "
                "and `views`, int64 (views); export it again"
            )
        if (made := self._lanes[0].describe_views()) != (wanted := _describe_views(cuts, merge)):
            raise SessionError(f"model {name}: {path.name}: found {made}; wanted {wanted}; export it again")
        self.name = name
        self.outputs = outputs
        self.cuts, self.merge = tuple(cuts), merge
        self._bounded = bounded
        self.provider: str = self._lanes[0].provider
        self._warm: set[tuple[int, int]] = set()  # (images, views) of the batches that have run

    def warm_up(self, batch: NDArray[np.uint8], views: Sequence[View], full: int = 0) -> None:
        """Run a batch for nothing, unless one like it has run, so that the next one takes its usual time.

        On a GPU, the first batch of each size is slow, because CUDA searches for the best algorithms; on the CPU, the
        first of all, for which an image per lane is enough. Arguments and errors are those of `predict`.
        """
        if self.provider == CUDA and (max(full, len(batch)), len(views)) not in self._warm:
            self._run(batch, views, full)
        elif not self._warm:
            self._run(batch[: self.lanes], views[:1], 0)

    def predict(
        self, batch: NDArray[np.uint8], views: Sequence[View] = ("identity",), full: int = 0
    ) -> NDArray[np.float32]:
        """Return the scores merged over views, (images, labels), of a batch (images, height, width, 3).

        The batch has the shape of the model's geometry for these views, which are of one scale.

        `full`: size of a full batch. On a GPU, a smaller batch is padded with black images to this size, because CUDA
        searches for the best algorithms again for every new size.

        Raises SessionError: the model fails, or its output has a wrong shape or is not a probability;
        DeviceMemoryError: out of memory on its device; DeviceLostError: its GPU is lost.
        """
        scores = self._run(batch, views, full)[: len(batch)]
        finite = np.isfinite(scores).all()
        if self._bounded and not (finite and scores.min() >= 0 and scores.max() <= 1):
            raise SessionError(f"model {self.name}: its output is not a probability: NaN or outside [0, 1]")
        if not finite:
            raise SessionError(f"model {self.name}: its output is not a number: NaN or infinite")
        return scores

    @property
    def lanes(self) -> int:
        """Return the number of parts of a batch that run in parallel."""
        return len(self._lanes)

    def stop(self) -> None:
        """Interrupt the current batch, from another thread, and refuse later ones: `predict` raises SessionError."""
        for lane in self._lanes:
            lane.stop()

    def _run(self, batch: NDArray[np.uint8], views: Sequence[View], full: int) -> NDArray[np.float32]:
        """Return the checked answers of all lanes, padding included."""
        if self.provider == CUDA:
            batch = _fill_up(batch, max(full, len(batch)))
        # A batch is halved down to a single part, which needs no thread, if the system has no thread left.
        parts = np.array_split(batch, min(len(self._lanes), len(batch)))
        places = np.array([self.cuts.index(split_view(view).cut) for view in views], np.int64)
        work = [partial(lane.run, part, places) for lane, part in zip(self._lanes, parts, strict=False)]
        try:
            if self.provider == CPU:
                require_free(ACTIVATIONS * len(views) * batch.nbytes)
            answers = THREADS.spread(work, self.stop)
        except Exception as error:
            raise describe_fault(error, f"model {self.name} fails on a batch of {batch.shape}") from error
        for answer, part in zip(answers, parts, strict=True):
            if answer.shape != (wanted := (len(part), self.outputs)):
                raise SessionError(f"model {self.name}: found an output of {answer.shape}; wanted {wanted}")
        self._warm.add((len(batch), len(views)))
        return np.concatenate(answers)


class Lane:
    """A session on one device, with a buffer for its input there."""

    def __init__(self, session: onnxruntime.InferenceSession, gpu: int = 0) -> None:
        """`gpu`: index of the GPU that the session was opened for, if any."""
        self._session, self._binding = session, session.io_binding()
        self._image: onnxruntime.OrtValue | None = None
        self._options = onnxruntime.RunOptions()
        self.provider: str = session.get_providers()[0]
        self._place = ("cuda", gpu) if self.provider == CUDA else ("cpu", 0)
        if self.provider == CUDA:
            # Each session has a memory arena of its own, and without this keeps its largest one: ten large models would
            # leave little to the last. Between two runs, only the weights stay on the device. An arena is a few blocks
            # of the size that was asked for, so that giving them back costs a few calls of the driver per batch.
            # An allocator shared by all sessions would not do: it never returns a block, and models of different
            # activations need blocks of different sizes.
            self._options.add_run_config_entry(SHRINK, f"gpu:{gpu}")

    def describe_inputs(self) -> list[tuple[str, str, int]]:
        """Return name, type and number of dimensions of each input."""
        return [(node.name, node.type, len(node.shape)) for node in self._session.get_inputs()]

    def describe_views(self) -> str:
        """Describe the views that the graph makes, as `_describe_views` does."""
        notes = self._session.get_modelmeta().custom_metadata_map
        return f"`cuts` {notes.get('cuts', 'missing')} and `merge` {notes.get('merge', 'missing')}"

    def run(self, part: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run the model on a part of a batch, with the views at `places` of its cuts.

        The input buffer is reused for parts of equal shape.
        """
        if self._image is None or tuple(self._image.shape()) != part.shape:
            self._image = onnxruntime.OrtValue.ortvalue_from_shape_and_type(part.shape, np.uint8, *self._place)
            self._binding.bind_ortvalue_input("image", self._image)
        self._image.update_inplace(np.ascontiguousarray(part))
        self._binding.bind_cpu_input("views", places)
        self._binding.bind_output("probabilities")
        self._session.run_with_iobinding(self._binding, self._options)
        answer: NDArray[np.float32]
        (answer,) = self._binding.copy_outputs_to_cpu()
        return answer

    def stop(self) -> None:
        """End the current run after its current operator, from another thread, and refuse later ones."""
        self._options.terminate = True


def _describe_views(cuts: Sequence[str], merge: str) -> str:
    return f"`cuts` {json.dumps(list(cuts))} and `merge` {merge}"


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


@contextmanager
def name_file(path: Path) -> Iterator[str]:
    """Yield a name of the file that ONNX Runtime can open, which takes UTF-8 only, while other paths may have any byte.

    Raises OSError.
    """
    try:
        yield str(path).encode().decode()
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"


def open_on_cpu(path: Path, threads: int = 0, lanes: int = 0) -> onnxruntime.InferenceSession:
    """Open a file on the CPU, to run it in `lanes` further threads with `threads` for each operator; 0: one per core.

    Raises MemoryError: too little memory is left under the limits of this process.
    """
    options = make_options()
    options.intra_op_num_threads = threads = threads or CORES
    if measure_free() < math.inf:
        share_arena()
        options.enable_cpu_mem_arena = False  # which doubles its size while it can, and leaves too little to others
        require_free(COPIES * path.stat().st_size + STACK * (threads + lanes))
    with name_file(path) as name:
        return onnxruntime.InferenceSession(name, options, providers=[CPU])


def _open_cpu_lanes(path: Path, cores: int) -> list[Lane]:
    session = open_on_cpu(path, threads=1, lanes=cores)  # each lane is a thread
    return [Lane(session) for _ in range(cores)]


def _open_gpu_lanes(path: Path, gpus: int) -> list[Lane]:
    # Requesting CUDA without it prints two error lines per model.
    if CUDA not in onnxruntime.get_available_providers():
        raise DeviceLostError(explain_cpu(()))
    lanes = []
    for device in range(gpus):
        # Allocate the requested size, not the next power of two: many models share a device.
        cuda = (CUDA, {"device_id": device, "arena_extend_strategy": "kSameAsRequested"})
        with name_file(path) as name:
            session = onnxruntime.InferenceSession(
                name,
                make_options(),
                providers=[cuda, CPU],
                # Some cuDNN versions refuse the asymmetric convolution that it creates (onnxruntime issue 26274).
                disabled_optimizers=["Pad_Fusion"],
                # An error of CUDA is raised; by default it is printed, and the session opens on the CPU.
                enable_fallback=0,
            )
        lanes.append(Lane(session, device))
        # A CUDA library that cannot be loaded is no error to ONNX Runtime: it drops the provider.
        if lanes[-1].provider != CUDA:
            raise DeviceLostError(explain_cpu(load_libraries()))
    return lanes


def explain_cpu(missing: tuple[str, ...]) -> str:
    """Explain why a present GPU is not used, and what to do; `missing`: CUDA libraries that could not be loaded."""
    version = f"onnxruntime {onnxruntime.__version__}"
    if CUDA not in onnxruntime.get_available_providers():
        return (
            f"{version} is built without CUDA; install onnxruntime-gpu in its place, "
            "or pack it with `build_kernel.py pack --wheels`"
        )
    reason = find_reason()
    if missing:
        what = f"{', '.join(missing)} cannot be loaded; install CUDA 12 and cuDNN 9, or pack with `--wheels cudnn`"
        return f"{what} ({reason})" if reason else what
    return f"{version} refused it: {reason or 'no reason given'}; check that it supports this GPU"


def find_reason() -> str:
    """Return the system's reason why ONNX Runtime's CUDA library cannot be loaded; empty if it can."""
    try:
        ctypes.CDLL(str(Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return str(error)
    return ""
