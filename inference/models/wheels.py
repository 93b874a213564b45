"""The wheels of a bundle: their choice and installation, and loading of their CUDA libraries."""

import ctypes
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from inference.basics.errors import SessionError

DRIVER = "libcuda.so.1"
# (folder in site-packages/nvidia, library), in the order of loading; cuBLAS needs cuBLASLt.
CUDA_LIBRARIES = (
    ("cuda_runtime", "libcudart.so.12"),
    ("cublas", "libcublasLt.so.12"),
    ("cublas", "libcublas.so.12"),
    ("cuda_nvrtc", "libnvrtc.so.12"),
    ("curand", "libcurand.so.10"),
    ("cufft", "libcufft.so.11"),
)
# Loaded in this order by full path: cuDNN opens its parts by name, and might find those of another cuDNN.
CUDNN_LIBRARIES = tuple(
    f"libcudnn{part}.so.9"
    for part in (
        "_graph",
        "_ops",
        "_cnn",
        "_adv",
        "_engines_precompiled",
        "_engines_runtime_compiled",
        "_heuristic",
        "",
    )
)


def choose_wheels(names: Iterable[str], gpu: bool, python: tuple[int, int] = sys.version_info[:2]) -> list[str]:
    """Return the wheel files that fit this Python, in order; NVIDIA's wheels, which are large, only with a GPU."""
    tag = f"cp{python[0]}{python[1]}"
    fitting = []
    for name in names:
        # distribution-version(-build)-python-abi-platform.whl
        distribution, tags = name.partition("-")[0], name.removesuffix(".whl").split("-")[-3:-2]
        pythons = tags[0].split(".") if tags else []
        if (tag in pythons or "py3" in pythons) and (gpu or not distribution.startswith("nvidia_")):
            fitting.append(name)
    return fitting


def install_wheels(wheels: Sequence[Path], target: Path) -> None:
    """Install the wheels into the folder `target` and nowhere else. Raises SessionError with the last line of pip."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--disable-pip-version-check", "--target", str(target), *map(str, wheels)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        last = (finished.stderr.strip() or "pip failed").splitlines()[-1]
        raise SessionError(f"{', '.join(wheel.name for wheel in wheels)} cannot be installed: {last}")


def load_libraries(path: Sequence[str] | None = None) -> tuple[str, ...]:
    """Load the CUDA and cuDNN libraries before other versions can be loaded; return the names of those missing.

    Searches the `nvidia` folder of each entry of `path` (sys.path by default), then the system's library path. Does
    nothing without an NVIDIA driver.
    """
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return ()
    places = [Path(entry, "nvidia") for entry in (sys.path if path is None else path)]
    missing = [name for folder, name in CUDA_LIBRARIES if not _load(_find(places, folder, name) or name)]
    whole = _find(places, "cudnn", CUDNN_LIBRARIES[-1])
    if whole:
        missing += [name for name in CUDNN_LIBRARIES if not _load(str(Path(whole).with_name(name)))]
    elif not _load(CUDNN_LIBRARIES[-1]):
        missing.append(CUDNN_LIBRARIES[-1])
    return tuple(missing)


def _find(places: Iterable[Path], folder: str, name: str) -> str | None:
    found = (place / folder / "lib" / name for place in places)
    return next((str(path) for path in found if path.is_file()), None)


def _load(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
