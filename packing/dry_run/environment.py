"""A virtual environment with the packages of Kaggle's image that the kernel uses, and without ONNX Runtime."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from inference.basics.errors import RehearsalError
from inference.basics.files import make_folder

# By the Python of Kaggle's images, the versions in them (docker-python, base of May 2026, and the next one).
COMMON = ("pillow==11.3.0", "matplotlib>=3.9,<3.11", "ipykernel")
PACKAGES = {
    (3, 12): ("numpy==2.0.2", "pandas>=2.2,<2.3", *COMMON),
    (3, 13): ("numpy==2.1.3", "pandas>=2.2,<2.3", *COMMON),
    (3, 11): ("numpy==2.0.2", "pandas>=2.2,<2.3", *COMMON),
}
MARKER = "packages.txt"


def prepare_image(cache: Path, python: str | None = None) -> Path:
    """Make the environment below `cache`, or reuse an equal one; return its Python.

    `python`: an interpreter of 3.11 to 3.13 (default: Kaggle's 3.12, or else the nearest version found). Raises
    RehearsalError: no interpreter found, or pip cannot install the packages.
    """
    interpreter, version = find_interpreter([python] if python else ["python3.12", "python3.13", sys.executable])
    wanted = "\n".join(PACKAGES[version])
    folder = cache / f"image-{version[0]}.{version[1]}"
    inside = (folder / "bin" / "python").absolute()
    marker = folder / MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
        return inside
    make_folder(cache)
    print(f"{folder}: making an environment similar to Kaggle's image: {', '.join(PACKAGES[version])}")
    for command in (
        [interpreter, "-m", "venv", "--clear", str(folder)],
        [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES[version]],
    ):
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            last = (finished.stderr.strip() or finished.stdout.strip() or "no message").splitlines()[-1]
            raise RehearsalError(f"{folder}: cannot make the environment: {last}")
    marker.write_text(wanted, encoding="utf-8")
    return inside


def find_interpreter(candidates: Iterable[str]) -> tuple[str, tuple[int, int]]:
    """Return the first candidate that runs and has a supported version, and the version. Raises RehearsalError."""
    candidates = list(candidates)
    for candidate in candidates:
        program = "import sys; print(*sys.version_info[:2])"
        if not shutil.which(candidate):
            continue
        finished = subprocess.run([candidate, "-c", program], capture_output=True, text=True, check=False)
        words = finished.stdout.split()
        if finished.returncode == 0 and len(words) == 2 and (int(words[0]), int(words[1])) in PACKAGES:
            return candidate, (int(words[0]), int(words[1]))
    raise RehearsalError(f"--python: found no Python 3.11 to 3.13 among {', '.join(candidates)}; name one")
