"""The wheels in the kernel: their choice, installation and libraries."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

import inference.models.wheels
from inference.basics.errors import SessionError
from inference.models.wheels import choose_wheels, install_wheels, load_libraries
from tests.conftest import ROOT
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


def test_without_a_driver_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(name: str, mode: int = 0) -> None:
        asked.append(name)
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert load_libraries([]) == () and asked == ["libcuda.so.1"]


def test_the_folders_of_this_python_are_searched(
    loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "nvidia" / "curand" / "lib" / "libcurand.so.10"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "libcurand.so.10" not in load_libraries() and str(library) in loaded


def test_a_cudnn_library_of_our_folder_that_does_not_load_is_reported(
    loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nvidia" / "cudnn" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcudnn.so.9").touch()
    monkeypatch.setattr(inference.models.wheels, "_load", lambda name: not name.endswith("libcudnn_adv.so.9"))
    assert load_libraries([str(tmp_path)]) == ("libcudnn_adv.so.9",)


def test_every_library_is_found_in_the_folder_of_nvidias_wheel(loaded: list[str], tmp_path: Path) -> None:
    wheels = {
        "cuda_runtime": ["libcudart.so.12"],
        "cublas": ["libcublasLt.so.12", "libcublas.so.12"],
        "cuda_nvrtc": ["libnvrtc.so.12"],
        "curand": ["libcurand.so.10"],
        "cufft": ["libcufft.so.11"],
        "cudnn": ["libcudnn.so.9"],
    }
    for folder, names in wheels.items():
        (tmp_path / "nvidia" / folder / "lib").mkdir(parents=True)
        for name in names:
            (tmp_path / "nvidia" / folder / "lib" / name).touch()
    assert load_libraries([str(tmp_path)]) == ()
    wanted = [f"{tmp_path}/nvidia/{folder}/lib/{name}" for folder, names in wheels.items() for name in names]
    assert [name for name in loaded if "libcudnn_" not in name] == wanted


def test_a_library_of_the_system_is_loaded_by_its_name(loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, mode=0: loaded.append(name))
    assert load_libraries([]) == ()
    assert loaded == [
        "libcuda.so.1",
        "libcudart.so.12",
        "libcublasLt.so.12",
        "libcublas.so.12",
        "libnvrtc.so.12",
        "libcurand.so.10",
        "libcufft.so.11",
        "libcudnn.so.9",
    ]


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a-1-cp312-abi3-linux.whl", True),
        ("a-1-cp311.cp312-cp312-linux.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-py2-none-any.whl", False),
        ("a-1-cp31-cp31-linux.whl", False),
        ("nvidia.whl", False),
        ("nvidia_cudnn_cu12-9-py3-none-any.whl", False),
        ("not_nvidia_cudnn-9-py3-none-any.whl", True),
    ],
)
def test_a_wheel_fits_by_the_tags_of_its_name(name: str, fits: bool) -> None:
    assert choose_wheels([name], gpu=False, python=(3, 12)) == [name] * fits


def test_pip_gets_the_options_that_keep_it_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **more: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        assert more == {"capture_output": True, "text": True, "check": False}
        return subprocess.CompletedProcess(command, 2, "", "" if len(commands) == 1 else "first\nlast\n")

    monkeypatch.setattr(subprocess, "run", run)
    for reason in ("pip failed", "last"):
        with pytest.raises(SessionError, match=f"^a.whl, b.whl cannot be installed: {reason}$"):
            install_wheels([tmp_path / "a.whl", tmp_path / "b.whl"], tmp_path / "site")
    assert commands[0] == [
        *[sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"],
        *["--disable-pip-version-check", "--target", f"{tmp_path}/site", f"{tmp_path}/a.whl", f"{tmp_path}/b.whl"],
    ]


COUNTED = """
import sys
from inference.models import wheels
def load_libraries():
    print(f"libraries before {'onnxruntime' in sys.modules}")
    return ("libcufft.so.11",)
wheels.load_libraries = load_libraries
from inference.__main__ import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "given", [["--bundle=none"], ["--bundle", "none"], ["--bund", "none"], ["--help"], ["--version"]]
)
def test_the_command_loads_the_libraries_before_onnxruntime_however_the_bundle_is_given(
    given: list[str], tmp_path: Path
) -> None:
    options = [f"--{name}={tmp_path / name}" for name in ("images", "sample", "out")]
    command = [sys.executable, "-c", COUNTED, *given, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if given in (["--help"], ["--version"]):
        assert "libraries before" not in done.stdout and done.returncode == 0, "they do not wait for it"
    else:
        assert done.stdout == "libraries before False\n", done.stderr
        assert done.stderr.startswith("warning: libcufft.so.11 is missing: all models run on the CPU\n")
