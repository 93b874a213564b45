"""The GPUs of the driver, and the trial of one batch."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from inference.basics.errors import ManifestError, SessionError
from inference.manifest.values import View
from inference.models import devices, sessions
from inference.models.devices import BatchTrial, Device, main, read_devices, try_batch
from inference.models.sessions import CPU, ModelSession
from tests.conftest import Workshop, write_picture

T4 = ("Tesla T4", (7, 5), 15_828_320_256)
P100 = ("Tesla P100-PCIE-16GB", (6, 0), 17_059_545_088)


class Driver:
    """A stand-in for libcuda (cuda.h); `broken`: the return value of cuInit, `hidden`: devices without a handle."""

    def __init__(
        self, *gpus: tuple[str, tuple[int, int], int], broken: int = 0, uncounted: int = 0, hidden: tuple[int, ...] = ()
    ) -> None:
        self.gpus, self.broken, self.uncounted, self.hidden = gpus, broken, uncounted, hidden

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.broken

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return self.uncounted

    def cuDeviceGet(self, handle: Any, ordinal: int) -> int:
        handle._obj.value = 10 + ordinal
        return 101 if ordinal in self.hidden else 0

    def cuDeviceGetName(self, name: Any, length: int, handle: Any) -> int:
        assert length == 256
        name.value = self.gpus[handle.value - 10][0].encode("latin-1")
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> int:
        memory._obj.value = self.gpus[handle.value - 10][2]
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, handle: Any) -> int:
        number._obj.value = self.gpus[handle.value - 10][1][{75: 0, 76: 1}[attribute]]
        return 0


def test_name_capability_and_memory_of_each_gpu_come_from_the_driver() -> None:
    assert read_devices(Driver(T4, P100)) == (Device(*T4), Device(*P100))


def test_a_driver_without_a_gpu_gives_no_devices() -> None:
    assert read_devices(Driver()) == ()
    assert read_devices(Driver(T4, broken=100)) == ()  # CUDA_ERROR_NO_DEVICE
    assert read_devices(Driver(T4, uncounted=3)) == ()  # CUDA_ERROR_NOT_INITIALIZED


def test_a_device_that_cannot_be_opened_is_left_out() -> None:
    assert read_devices(Driver(T4, P100, hidden=(0,))) == (Device(*P100),)


def test_a_name_in_an_unknown_encoding_is_readable() -> None:
    (device,) = read_devices(Driver(("Tesla \xff", (7, 5), 1)))
    assert device.name == "Tesla \ufffd"


def test_without_a_driver_there_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(name: str) -> Driver:
        asked.append(name)
        if len(asked) == 1:
            raise OSError(name)
        return Driver(T4)

    monkeypatch.setattr(devices.ctypes, "CDLL", load)
    assert read_devices() == ()
    assert read_devices() == (Device(*T4),) and asked == ["libcuda.so.1"] * 2


def test_one_real_batch_runs_through_the_smallest_model(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken image and another file are left out, and the batch is no larger than the bundle's."""
    images = tmp_path / "images"
    shutil.copytree(workshop.images, images)
    (images / "0.png").write_bytes(b"broken")
    (images / "0.txt").write_text("no image")
    batches: list[np.ndarray] = []
    real = ModelSession.predict

    def predict(session: ModelSession, batch: np.ndarray, views: Sequence[View]) -> np.ndarray:
        assert views == ["identity"]
        batches.append(batch)
        return real(session, batch, views)

    monkeypatch.setattr(ModelSession, "predict", predict)
    monkeypatch.setattr(devices, "load_libraries", lambda: ("libcufft.so.11",))
    trial = try_batch(workshop.dataset, images)
    smallest = min((workshop.dataset / f"{name}.onnx" for name in ("everything", "culture", "tag")), key=measure)
    assert (trial.model, trial.images, trial.provider) == (smallest.stem, 20, CPU)
    assert (trial.onnxruntime, trial.missing) == (onnxruntime.__version__, ("libcufft.so.11",))
    assert 0 < trial.seconds < 60 and round(trial.seconds, 2) == trial.seconds
    document = json.loads((workshop.dataset / "weights_manifest.json").read_text())
    wanted = document["runtime"]["batch_size"]
    for index in range(wanted):
        write_picture(images / f"more{index}.png", (60, 60), index)
    assert try_batch(workshop.dataset, images).images == wanted
    assert [len(batch) for batch in batches] == [20, wanted]


def measure(path: Path) -> int:
    return path.stat().st_size


def test_a_damaged_model_is_not_tried(own_workshop: Workshop) -> None:
    for path in own_workshop.dataset.glob("*.onnx"):
        path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ManifestError, match=r"^weights_manifest\.json: `models\."):
        try_batch(own_workshop.dataset, own_workshop.images)


def test_a_folder_without_images_is_tried_with_none(workshop: Workshop, tmp_path: Path) -> None:
    assert try_batch(workshop.dataset, tmp_path).images == 0


def test_a_gpu_that_onnxruntime_refuses_is_the_error_of_the_trial(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The notebook prints it and runs on the CPU."""
    monkeypatch.setattr(devices, "read_devices", lambda: (Device(*T4),))
    monkeypatch.setattr(sessions.onnxruntime, "get_available_providers", lambda: [CPU])
    assert main(["--bundle", str(workshop.dataset), "--images", str(workshop.images)]) == 1
    found = capsys.readouterr()
    assert found.out == "" and found.err.startswith(
        f"error: onnxruntime {onnxruntime.__version__} is built without CUDA;"
    )


@pytest.mark.parametrize("error", [SessionError("x"), OSError("x"), ImportError("x"), MemoryError("x")])
def test_any_failure_of_the_trial_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(bundle: Path, images: Path, attached: dict[str, Path]) -> BatchTrial:
        assert (bundle, images, attached) == (Path("a"), Path("b"), {"o/s": Path("c=d"), "o/t": Path("e")})
        raise error

    monkeypatch.setattr(devices, "try_batch", fail)
    assert main(["--bundle", "a", "--images", "b", "--attached=o/s=c=d", "--attached", "o/t=e"]) == 1
    assert capsys.readouterr() == ("", "error: x\n")


def test_the_trial_is_one_line_of_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    trial = BatchTrial("m", CPU, "1.26.0", 3, 0.5, ("libcufft.so.11",))
    monkeypatch.setattr(devices, "try_batch", lambda *_: trial)
    assert main(["--bundle", "a", "--images", "b"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == asdict(trial) | {"missing": ["libcufft.so.11"]}


@pytest.mark.parametrize("given", [["--bundle", "a"], ["--images", "a"], []])
def test_both_folders_are_needed(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2 and "python -m inference.models.devices" in capsys.readouterr().err


def test_the_trial_of_a_packed_bundle(own_workshop: Workshop) -> None:
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


def test_a_trial_runs_an_attached_model_only_if_the_bundle_has_none(own_workshop: Workshop, tmp_path: Path) -> None:
    path, attached = own_workshop.dataset / "weights_manifest.json", tmp_path / "theirs"
    attached.mkdir()

    def attach(names: set[str]) -> None:
        document = json.loads(path.read_text())
        for model in document["models"]:
            if model["name"] in names:
                shutil.move(own_workshop.dataset / f"{model['name']}.onnx", attached)
                model["onnx"]["fp32"]["dataset"] = "owner/theirs"
        path.write_text(json.dumps(document))

    sizes = {name: measure(own_workshop.dataset / f"{name}.onnx") for name in ("everything", "culture", "tag")}
    first, _, largest = sorted(sizes, key=sizes.__getitem__)
    attach(sizes.keys() - {largest})
    assert try_batch(own_workshop.dataset, own_workshop.images, {"owner/theirs": attached}).model == largest
    attach({largest})
    assert try_batch(own_workshop.dataset, own_workshop.images, {"owner/theirs": attached}).model == first
    (attached / f"{first}.onnx").write_bytes(b"changed")
    with pytest.raises(ManifestError, match=f"models.{first}.sha256"):
        try_batch(own_workshop.dataset, own_workshop.images, {"owner/theirs": attached})
