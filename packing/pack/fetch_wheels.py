"""The wheels of a bundle, downloaded from the index that pip is configured for and checked against their RECORD.

onnxruntime-gpu 1.26.0 is the last release with code for sm_60 to sm_90 on CUDA 12: one wheel runs on P100, T4, L4 and
on the CPU. nvidia-cudnn-cu12 9.10.2.21 is the last cuDNN with sm_60.
"""

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from inference.basics.errors import PackError
from inference.basics.files import make_folder

Carried = Literal["onnxruntime", "cudnn"]
PYTHONS = ("311", "312", "313")  # of Kaggle's images: the previous, the current and the next
# A platform names the oldest glibc that a wheel runs with; each of these is older than the glibc of Kaggle's images.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Requirement:
    """A release that the bundle includes."""

    name: str
    version: str
    pythons: tuple[str, ...] = ()
    """Versions of Python with a separate wheel; empty if one wheel serves all."""

    def find_wheels(self, cache: Path, python: str | None) -> list[Path]:
        """Return its wheels for that Python in the cache."""
        stem = f"{self.name.replace('-', '_')}-{self.version}"
        return sorted(cache.glob(f"{stem}-{f'cp{python}-' if python else 'py3-'}*.whl"))


ONNXRUNTIME = Requirement("onnxruntime-gpu", "1.26.0", PYTHONS)
CUDNN = Requirement("nvidia-cudnn-cu12", "9.10.2.21")
REQUIREMENTS: dict[Carried, tuple[Requirement, ...]] = {"onnxruntime": (ONNXRUNTIME,), "cudnn": (ONNXRUNTIME, CUDNN)}
# Dynamic libraries that Kaggle's image has: those of PyTorch 2.10 for CUDA 12.8, whose cuBLAS and cuDNN are the
# versions observed in the image, NVIDIA's driver, and the C and C++ runtimes of its Ubuntu.
IMAGE_LIBRARIES = frozenset(
    (
        *("libcudart.so.12", "libcublas.so.12", "libcublasLt.so.12", "libcurand.so.10", "libcufft.so.11"),
        *("libnvrtc.so.12", "libcudnn.so.9", "libcuda.so.1"),
        *("libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "ld-linux-x86-64.so.2"),
        *("libstdc++.so.6", "libgcc_s.so.1", "libz.so.1"),
    )
)


def fetch_wheels(carried: Carried, cache: Path) -> tuple[Path, ...]:
    """Return the wheels to include, from the cache or else downloaded with `pip download`.

    Each is checked against its RECORD. Raises PackError: pip could not download one, or one is damaged.
    """
    make_folder(cache)
    wanted = [
        (requirement, python) for requirement in REQUIREMENTS[carried] for python in requirement.pythons or (None,)
    ]
    wheels = []
    for requirement, python in tqdm(wanted, desc="wheels", unit="wheel", leave=False):
        found = requirement.find_wheels(cache, python)
        if not found:
            _download(requirement, python, cache)
            found = requirement.find_wheels(cache, python)
        if not found:
            raise PackError(f"{cache}: pip downloaded no wheel of {requirement.name} for Python {python or '3'}")
        verify_wheel(found[0])
        wheels.append(found[0])
    return tuple(wheels)


def verify_wheel(path: Path) -> None:
    """Check a wheel. Raises PackError: not a zip file, without a RECORD, or with a file that differs from it."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = dict(_read_record(archive))
            if not records:
                raise PackError(f"{path}: not a wheel: it has no RECORD of its files; remove it and run again")
            for name in archive.namelist():
                if not name.endswith(("/", ".dist-info/RECORD")) and records.get(name) != _hash_member(archive, name):
                    raise PackError(f"{path}: {name} differs from the RECORD; remove the wheel and run again")
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise PackError(f"{path}: incomplete wheel: {error}; remove it and run again") from error


def _download(requirement: Requirement, python: str | None, cache: Path) -> None:
    pinned = f"{requirement.name}=={requirement.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python or PYTHONS[0]]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    finished = subprocess.run(
        [*command, "--dest", str(cache), pinned], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    if finished.returncode != 0:
        errors = [line for line in finished.stderr.splitlines() if line.startswith("ERROR:")]
        reason = errors[0].removeprefix("ERROR: ")[:200] if errors else f"exit code {finished.returncode}"
        raise PackError(f"pip cannot download {pinned} for Python {python or '3'}: {reason}")


def _read_record(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    for name in archive.namelist():
        if name.endswith(".dist-info/RECORD") and name.count("/") == 1:
            rows = csv.reader(io.TextIOWrapper(archive.open(name), encoding="utf-8", newline=""))
            yield from ((row[0], row[1]) for row in rows if len(row) > 1)


def _hash_member(archive: zipfile.ZipFile, name: str) -> str:
    digest = hashlib.sha256()
    with archive.open(name) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
