import base64
import csv
import hashlib
import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from inference.basics.errors import PackError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.models.wheels import CUDNN_LIBRARIES
from packing.check.check import check_bundle
from packing.pack.fetch_wheels import CUDNN, IMAGE_LIBRARIES, ONNXRUNTIME, fetch_wheels, verify_wheel
from packing.pack.write_bundle import pack
from tests.conftest import NAMES, ROOT, Workshop
from tests.packing.pack.elf import list_needed

CACHE = ROOT / "build" / "wheels"
TAGS = ("cp311-cp311", "cp312-cp312", "cp313-cp313")
PLATFORM = "manylinux_2_27_x86_64.manylinux_2_28_x86_64"


def write_wheel(folder: Path, name: str, version: str, tags: str) -> Path:
    """Write a wheel of one module, following PEP 427."""
    path = folder / f"{name}-{version}-{tags}.whl"
    information = f"{name}-{version}.dist-info"
    members = {
        f"{name}.py": f"version = {version!r}\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: absent\n",
        f"{information}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tags}\n",
    }
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for member, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        rows.writerow((member, f"sha256={digest}", len(content)))
    rows.writerow((f"{information}/RECORD", "", ""))
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**members, f"{information}/RECORD": record.getvalue()}.items():
            archive.writestr(member, content)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip is configured to use as its only source of wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_wheel_for_each_of_kaggles_pythons_is_downloaded_once(index: Path, tmp_path: Path) -> None:
    for tags in (*TAGS, "cp310-cp310"):
        write_wheel(index, "onnxruntime_gpu", "1.26.0", f"{tags}-{PLATFORM}")
    write_wheel(index, "onnxruntime_gpu", "1.27.0", f"cp312-cp312-{PLATFORM}")
    wanted = [f"onnxruntime_gpu-1.26.0-{tags}-{PLATFORM}.whl" for tags in TAGS]
    assert [wheel.name for wheel in fetch_wheels("onnxruntime", tmp_path / "cache")] == wanted
    shutil.rmtree(index)
    assert [wheel.name for wheel in fetch_wheels("onnxruntime", tmp_path / "cache")] == wanted
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == wanted


def test_cudnn_is_included_in_the_last_release_for_a_p100(index: Path, tmp_path: Path) -> None:
    for tags in TAGS:
        write_wheel(index, "onnxruntime_gpu", "1.26.0", f"{tags}-{PLATFORM}")
    for version in ("9.10.2.21", "9.19.0.56"):
        write_wheel(index, "nvidia_cudnn_cu12", version, "py3-none-manylinux_2_27_x86_64")
    wheels = fetch_wheels("cudnn", tmp_path / "cache")
    assert wheels[-1].name == "nvidia_cudnn_cu12-9.10.2.21-py3-none-manylinux_2_27_x86_64.whl"
    assert len(wheels) == 4


def test_a_failed_download_is_reported_in_one_line(index: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError) as error:
        fetch_wheels("onnxruntime", tmp_path / "cache")
    assert str(error.value) == (
        "pip cannot download onnxruntime-gpu==1.26.0 for Python 311: Could not find a version that satisfies the "
        "requirement onnxruntime-gpu==1.26.0 (from versions: none)"
    )


def test_an_incomplete_wheel_in_the_cache_is_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "onnxruntime_gpu", "1.26.0", f"cp311-cp311-{PLATFORM}")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PackError) as error:
        fetch_wheels("onnxruntime", tmp_path)
    assert str(error.value) == f"{path}: incomplete wheel: File is not a zip file; remove it and run again"


def test_a_wheel_with_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "one", "1", "py3-none-any")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "one.py": b"import os\n"}.items():
            archive.writestr(name, content)
    with pytest.raises(PackError) as error:
        verify_wheel(path)
    assert str(error.value) == f"{path}: one.py differs from the RECORD; remove the wheel and run again"


def test_a_zip_file_that_is_not_a_wheel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.py", "")
    with pytest.raises(PackError) as error:
        verify_wheel(path)
    assert str(error.value) == f"{path}: not a wheel: it has no RECORD of its files; remove it and run again"


def test_a_pack_with_wheels_includes_them_and_declares_their_hashes(workshop: Workshop, tmp_path: Path) -> None:
    wheels = [write_wheel(tmp_path, "onnxruntime_gpu", "1.26.0", f"{tags}-{PLATFORM}") for tags in TAGS]
    packed = pack(workshop.manifest, workshop.onnx, tmp_path / "bundle", NAMES, wheels=wheels)
    check_bundle(tmp_path / "bundle")
    declared = read_manifest(packed.dataset / MANIFEST_NAME).runtime.wheels
    assert [(entry.file, entry.sha256) for entry in declared] == [(wheel.name, hash_file(wheel)) for wheel in wheels]
    assert all((packed.dataset / wheel.name).read_bytes() == wheel.read_bytes() for wheel in wheels)


real = pytest.mark.skipif(
    len(ONNXRUNTIME.find_wheels(CACHE, "312")) == 0, reason="build/wheels is empty: run `build_kernel.py pack --wheels`"
)


@real
@pytest.mark.parametrize("python", [*ONNXRUNTIME.pythons, None])
def test_every_library_that_the_cuda_provider_and_cudnn_need_is_in_their_wheel_or_in_kaggles_image(
    python: str | None, tmp_path: Path
) -> None:
    wheels = (ONNXRUNTIME if python else CUDNN).find_wheels(CACHE, python)
    if not wheels:
        pytest.skip(f"build/wheels has no wheel for {python}")
    with zipfile.ZipFile(wheels[0]) as archive:
        libraries = [name for name in archive.namelist() if ".so" in name and "tensorrt" not in name]
        included = {Path(name).name for name in libraries}
        needed = {}
        for name in libraries:
            extracted = Path(archive.extract(name, tmp_path))
            needed[extracted.name] = list_needed(extracted)
            if extracted.name == "libonnxruntime_providers_cuda.so" and shutil.which("readelf"):
                assert needed[extracted.name] == read_with_readelf(extracted)
            extracted.unlink()
    if python:
        provider = needed["libonnxruntime_providers_cuda.so"]
        assert {"libcudnn.so.9", "libcublas.so.12", "libcudart.so.12"} <= set(provider), "no library was read"
    else:
        assert set(CUDNN_LIBRARIES) <= included and "libcudnn_graph.so.9" in needed["libcudnn_cnn.so.9"]
    absent = {name: set(wanted) - included - IMAGE_LIBRARIES for name, wanted in needed.items()}
    assert {name: wanted for name, wanted in absent.items() if wanted} == {}


def read_with_readelf(path: Path) -> list[str]:
    output = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    return [line.partition("[")[2].rstrip("]") for line in output.splitlines() if "(NEEDED)" in line]
