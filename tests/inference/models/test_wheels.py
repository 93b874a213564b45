"""The wheels in the kernel: their choice, installation and libraries; the GPUs of the driver."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import inference.models.wheels
from inference.basics.errors import SessionError
from inference.models.devices import Device, read_devices, try_batch
from inference.models.wheels import choose_wheels, install_wheels, load_libraries
from tests.conftest import Workshop
from tests.packing.pack.test_fetch_wheels import write_wheel

NAMES = (
    "onnxruntime_gpu-1.26.0-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "onnxruntime_gpu-1.26.0-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "nvidia_cudnn_cu12-9.10.2.21-py3-none-manylinux_2_27_x86_64.whl",
    "tqdm-4.0-1-py2.py3-none-any.whl",
)


@pytest.mark.parametrize(
    ("python", "gpu", "chosen"),
    [
        ((3, 12), True, (0, 2, 3)),
        ((3, 13), True, (1, 2, 3)),
        ((3, 13), False, (1, 3)),
        ((3, 1), False, (3,)),
    ],
)
def test_the_wheels_of_this_python_are_chosen_and_nvidias_only_for_a_gpu(
    python: tuple[int, int], gpu: bool, chosen: tuple[int, ...]
) -> None:
    assert choose_wheels(NAMES, gpu, python) == [NAMES[index] for index in chosen]


def test_a_wheel_is_installed_into_its_folder_without_its_requirements(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, "onlyhere", "1.5", "py3-none-any")
    install_wheels([wheel], tmp_path / "site")
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["onlyhere-1.5.dist-info", "onlyhere.py"]
    program = "import onlyhere; print(onlyhere.version)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1.5\n"


def test_a_wheel_that_cannot_be_installed_is_named(tmp_path: Path) -> None:
    wheel = tmp_path / "broken-1-py3-none-any.whl"
    wheel.write_bytes(b"no wheel")
    with pytest.raises(SessionError, match=r"^broken-1-py3-none-any\.whl cannot be installed: ERROR: .*wheel"):
        install_wheels([wheel], tmp_path / "site")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The libraries loaded, in order, on a machine with a driver; cuBLAS and the CUDA runtime are system libraries."""
    order: list[str] = []

    def load(name: str, mode: int = 0) -> None:
        if name != inference.models.wheels.DRIVER:
            assert mode == ctypes.RTLD_GLOBAL
            if not name.startswith(("/", "libcublas", "libcudart")):
                raise OSError(name)
            order.append(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    return order


def test_every_cudnn_library_of_the_first_folder_is_loaded_by_its_path(loaded: list[str], tmp_path: Path) -> None:
    ours, images = tmp_path / "site", tmp_path / "image"
    parts = ("_graph", "_ops", "_cnn", "_adv", "_engines_precompiled", "_engines_runtime_compiled", "_heuristic", "")
    for place in (ours, images):
        (place / "nvidia" / "cudnn" / "lib").mkdir(parents=True)
        (place / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9").touch()
    (images / "nvidia" / "cufft" / "lib").mkdir(parents=True)
    (images / "nvidia" / "cufft" / "lib" / "libcufft.so.11").touch()
    missing = load_libraries([str(ours), str(images)])
    assert missing == ("libnvrtc.so.12", "libcurand.so.10")
    assert loaded == [
        "libcudart.so.12",
        "libcublasLt.so.12",
        "libcublas.so.12",
        f"{images}/nvidia/cufft/lib/libcufft.so.11",
        *(f"{ours}/nvidia/cudnn/lib/libcudnn{part}.so.9" for part in parts),
    ]


def test_a_missing_cudnn_is_reported(loaded: list[str], tmp_path: Path) -> None:
    assert "libcudnn.so.9" in load_libraries([str(tmp_path)])


class Driver:
    """A stand-in for libcuda (cuda.h) with two GPUs; `broken`: the return value of cuInit."""

    gpus = (("Tesla T4", (7, 5), 15_828_320_256), ("Tesla P100-PCIE-16GB", (6, 0), 17_059_545_088))

    def __init__(self, broken: int = 0) -> None:
        self.broken = broken

    def cuInit(self, flags: int) -> int:
        return self.broken

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, handle: Any, ordinal: int) -> int:
        handle._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, name: Any, length: int, handle: Any) -> int:
        name.value = self.gpus[handle.value][0].encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> int:
        memory._obj.value = self.gpus[handle.value][2]
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, handle: Any) -> int:
        number._obj.value = self.gpus[handle.value][1][{75: 0, 76: 1}[attribute]]
        return 0


def test_name_capability_and_memory_of_each_gpu_come_from_the_driver() -> None:
    assert read_devices(Driver()) == (
        Device("Tesla T4", (7, 5), 15_828_320_256),
        Device("Tesla P100-PCIE-16GB", (6, 0), 17_059_545_088),
    )


def test_a_driver_without_a_gpu_gives_no_devices() -> None:
    assert read_devices(Driver(broken=100)) == ()  # CUDA_ERROR_NO_DEVICE


def test_one_real_batch_runs_through_the_smallest_model(workshop: Workshop) -> None:
    trial = try_batch(workshop.dataset, workshop.images)
    smallest = min((workshop.dataset / f"{name}.onnx" for name in ("everything", "culture", "tag")), key=measure)
    assert (trial.model, trial.images) == (smallest.stem, 20)
    assert trial.provider.endswith("ExecutionProvider") and trial.seconds > 0


def measure(path: Path) -> int:
    return path.stat().st_size


def test_the_trial_prints_one_line_of_json_or_one_line_of_error(own_workshop: Workshop) -> None:
    def call() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "inference.models.devices", "--bundle", str(own_workshop.dataset)]
        environment = os.environ | {"PYTHONPATH": str(own_workshop.dataset / "inference.pyz")}
        return subprocess.run(
            [*command, "--images", str(own_workshop.images)],
            env=environment, cwd=own_workshop.home, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = call()
    assert json.loads(done.stdout)["images"] == 20, done.stderr
    for path in own_workshop.dataset.glob("*.onnx"):
        path.write_bytes(b"damaged")
    done = call()
    assert done.returncode == 1 and done.stderr.startswith("error: weights_manifest.json: `models."), done.stderr
