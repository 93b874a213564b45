"""The GPUs of this machine, read from NVIDIA's driver, and a trial of one real batch.

`python -m inference.models.devices --bundle DIR --images DIR` runs the batch in its own process: a GPU without
matching kernel code, or two mixed cuDNN versions, may kill that process but must not kill the run.
"""

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from inference.basics.errors import ImageError, VitrineError
from inference.manifest.file import NO_DATASETS, find_file, read_dataset, verify_files
from inference.models.wheels import DRIVER, load_libraries

# CUdevice_attribute of cuda.h.
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
MOST_TRIED = 10_000  # files, as some may be unreadable


@dataclass(frozen=True)
class Device:
    """One GPU."""

    name: str
    capability: tuple[int, int]
    """CUDA compute capability, as in (7, 5)."""
    memory: int
    """In bytes."""


@dataclass(frozen=True)
class BatchTrial:
    """The result of one batch."""

    model: str
    provider: str
    """Execution provider of ONNX Runtime that ran the batch."""
    onnxruntime: str
    """Version."""
    images: int
    seconds: float
    """From reading the manifest to the end of the batch."""
    missing: tuple[str, ...]
    """CUDA libraries that could not be loaded."""


def read_devices(driver: Any = None) -> tuple[Device, ...]:
    """Return the GPUs that the driver shows to this process; none without a driver.

    `driver`: libcuda or a stand-in for it. CUDA_VISIBLE_DEVICES applies, as for any CUDA program.
    """
    try:
        driver = driver or ctypes.CDLL(DRIVER)
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    devices = []
    for ordinal in range(count.value):
        handle, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
        if driver.cuDeviceGet(ctypes.byref(handle), ordinal) != 0:
            continue
        driver.cuDeviceGetName(name, len(name), handle)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
        capability = []
        for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
            number = ctypes.c_int()
            driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, handle)
            capability.append(number.value)
        devices.append(Device(name.value.decode(errors="replace"), (capability[0], capability[1]), memory.value))
    return tuple(devices)


def try_batch(bundle: Path, images: Path, attached: Mapping[str, Path] = NO_DATASETS) -> BatchTrial:
    """Run the bundle's smallest model on one batch of the folder's images, of the bundle's batch size.

    A model in an attached dataset is used only if the bundle has none; `attached`: OWNER/SLUG -> folder. Raises
    VitrineError: the model's hash is wrong, or it does not load or run.
    """
    missing = load_libraries()
    import numpy as np
    import onnxruntime

    from inference.images.geometry import read_geometry
    from inference.images.read import read_squares
    from inference.images.read_ahead import decode_ahead
    from inference.manifest.bundle import read_declared
    from inference.models.sessions import ModelSession
    from inference.task.image_places import list_images

    started = time.perf_counter()
    manifest, labels = read_declared(bundle)
    # Every provider can run fp32.
    entries = [(model, model.onnx["fp32"]) for model in manifest.models]
    own = [pair for pair in entries if read_dataset(pair[1]) is None]
    model, entry = min(own or entries, key=lambda pair: find_file(pair[1], bundle, attached).stat().st_size)
    verify_files([(f"models.{model.name}", entry)], bundle, attached)
    session = ModelSession(
        model.name,
        find_file(entry, bundle, attached),
        labels.count_outputs(model),
        gpus=len(read_devices()),
        bounded=manifest.is_bounded(model),
        cuts=model.cuts,
        merge=model.merge,
    )
    view = model.views[0]
    geometry = replace(read_geometry(model, view), tiles=None)  # a trial needs no tiles
    runtime = manifest.runtime
    paths = list_images(images, MOST_TRIED)
    read = partial(read_squares, geometries={geometry}, max_pixels=runtime.max_pixels)
    squares: list[Any] = []
    with closing(decode_ahead(paths, read, runtime.batch_size, runtime.image_seconds)) as chunks:
        for _, chunk in chunks:
            squares += [shown[geometry] for shown in chunk if not isinstance(shown, ImageError)]
            if len(squares) >= runtime.batch_size:
                break
    squares = squares[: runtime.batch_size]
    if squares:
        session.predict(np.stack(squares), [view])
    return BatchTrial(
        model=model.name,
        provider=session.provider,
        onnxruntime=onnxruntime.__version__,
        images=len(squares),
        seconds=round(time.perf_counter() - started, 2),
        missing=missing,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the trial as one line of JSON; return the exit code, 1 after an error, which takes one line."""
    parser = argparse.ArgumentParser(prog="python -m inference.models.devices", description="Run one real batch.")
    parser.add_argument("--bundle", type=Path, required=True, help="folder with weights_manifest.json")
    parser.add_argument("--images", type=Path, required=True, help="folder with images")
    parser.add_argument(
        "--attached", action="append", default=[], metavar="OWNER/SLUG=DIR", help="folder of an attached dataset"
    )
    given = parser.parse_args(arguments)
    attached = {dataset: Path(folder) for dataset, _, folder in (text.partition("=") for text in given.attached)}
    try:
        trial = try_batch(given.bundle, given.images, attached)
    except (VitrineError, OSError, ImportError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(trial)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
