"""Who may import whom, read from the imports themselves."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("inference", "packing", "training", "demo")
KERNEL = {"numpy", "PIL", "onnxruntime", "inference"}


def list_imports(room: str) -> Iterator[tuple[Path, str]]:
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield path, "a relative import" if node.level else str(node.module).partition(".")[0]


def test_the_kernel_imports_only_what_a_kernel_has() -> None:
    strange = {
        (path.name, name) for path, name in list_imports("inference") if name not in KERNEL | sys.stdlib_module_names
    }
    assert strange == set()


def test_the_kernel_never_unpickles() -> None:
    assert [path for path, name in list_imports("inference") if name in ("pickle", "shelve", "marshal")] == []


def test_the_kernel_extracts_no_archive_and_reads_no_object_arrays() -> None:
    archives = ("zipfile", "tarfile", "gzip", "bz2", "lzma")
    assert [path for path, name in list_imports("inference") if name in archives] == []
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "inference").rglob("*.py")]
    assert not any("unpack_archive" in source for source in sources)
    for path in (ROOT / "inference").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                assert "allow_pickle=False" in ast.unparse(node), path.name


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "inference"])
def test_imports_point_down_only(room: str) -> None:
    others = set(ROOMS) - {"inference", room}
    assert {(path.name, name) for path, name in list_imports(room) if name in others} == set()
    assert any(name == "inference" for _, name in list_imports(room)), "nothing was read"


def test_the_notebook_itself_needs_no_onnx_runtime_which_kaggles_image_lacks() -> None:
    cells = json.loads((ROOT / "kernel_template.ipynb").read_text(encoding="utf-8"))["cells"]
    lines = [line.strip() for cell in cells if cell["cell_type"] == "code" for line in cell["source"]]
    imports = [line for line in lines if line.startswith("from inference.")]
    assert len(imports) > 5
    without = "import sys; sys.modules['onnxruntime'] = None\n" + "\n".join(imports)
    subprocess.run([sys.executable, "-c", without], check=True, cwd=ROOT)
