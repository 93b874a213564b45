"""The rules of the house hold, and a planted breach of each is found."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.house import rules

Rule = Callable[[Path], list[str]]
ALL_RULES = (
    rules.find_upward_imports,
    rules.find_circles,
    rules.find_broken_imports,
    rules.find_unreached,
    rules.find_foreign_packages,
    rules.find_homeless_tests,
    rules.find_large_parts,
)
LONG_FUNCTION = "\n\ndef walk() -> None:\n" + "    pass\n" * 60
# (rule, file, text added to it, the breach that is found)
BREACHES: list[tuple[Rule, str, str, str]] = [
    (
        rules.find_upward_imports,
        "inference/images/tiles.py",
        "\n\ndef peek() -> None:\n    from inference.models.sessions import ModelSession\n",
        "inference.images.tiles imports inference.models.sessions: images is below models",
    ),
    (
        rules.find_upward_imports,
        "packing/accelerators.py",
        "\nfrom training.recipe import Recipe\n",
        "packing.accelerators imports training.recipe: packing may import inference, packing, zoo",
    ),
    (
        rules.find_upward_imports,
        "zoo/text.py",
        "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from demo.museum import write_museum\n",
        "zoo.text imports demo.museum: zoo may import inference, zoo",
    ),
    (
        rules.find_circles,
        "inference/basics/errors.py",
        "\nfrom inference.basics.files import hash_file\n",
        "inference.basics.errors imports inference.basics.files imports inference.basics.errors",
    ),
    (
        rules.find_broken_imports,
        "benchmarks/kernel.py",
        "\n\ndef walk() -> None:\n    from inference.sessions import ModelSession\n",
        "benchmarks/kernel.py imports inference.sessions.ModelSession, which does not exist",
    ),
    (
        rules.find_unreached,
        "inference/task/metric.py",
        '"""A metric that the kernel never uses."""\n',
        "inference.task.metric: neither inference/__main__.py nor the notebook imports it",
    ),
    (
        rules.find_foreign_packages,
        "inference/task/ids.py",
        "\nimport pandas\n",
        "inference.task.ids imports pandas, which README.md does not list for inference/",
    ),
    (
        rules.find_foreign_packages,
        "packing/accelerators.py",
        "\nfrom . import add\n",
        "packing.accelerators: a relative import",
    ),
    (
        rules.find_homeless_tests,
        "tests/inference/run/test_nothing.py",
        "",
        "tests/inference/run/test_nothing.py: no module inference/run/nothing.py",
    ),
    (
        rules.find_large_parts,
        "zoo/text.py",
        LONG_FUNCTION,
        "zoo/text.py: walk has 61 lines, at most 60",
    ),
    (
        rules.find_large_parts,
        "demo/long.py",
        "\n" * 301,
        "demo/long.py: 301 lines, at most 300",
    ),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that the rules read."""
    copy = tmp_path_factory.mktemp("house")
    for folder in (*rules.FLOORS, "benchmarks", "tests", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "kernel_template.ipynb"):
        shutil.copyfile(ROOT / name, copy / name)
    return copy


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.__name__)
def test_the_rules_hold(rule: Rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "file", "text", "message"), BREACHES)
def test_a_planted_breach_is_found(house: Path, rule: Rule, file: str, text: str, message: str) -> None:
    path = house / file
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.write_text((before or "") + text, encoding="utf-8")
    try:
        assert message in rule(house)
    finally:
        path.unlink()
        if before is not None:
            path.write_text(before, encoding="utf-8")


def test_a_folder_with_too_many_files_is_found(house: Path) -> None:
    crowd = house / "demo" / "crowd"
    crowd.mkdir()
    for index in range(13):
        (crowd / f"part_{index}.py").write_text("", encoding="utf-8")
    assert "demo/crowd/: 13 files side by side, at most 12" in rules.find_large_parts(house)
    shutil.rmtree(crowd)


def test_the_kernel_never_unpickles() -> None:
    kernel = {name: tree for name, tree in rules.list_modules(ROOT).items() if name.startswith("inference")}
    forbidden = ("pickle", "shelve", "marshal", "zipfile", "tarfile", "gzip", "bz2", "lzma")
    assert len(kernel) > 30
    for name, tree in kernel.items():
        assert not {one.partition(".")[0] for one in rules.list_imports(tree)} & set(forbidden), name
        assert "unpack_archive" not in ast.unparse(tree), name


def test_the_kernel_reads_no_object_arrays() -> None:
    calls = [
        (name, ast.unparse(node))
        for name, tree in rules.list_modules(ROOT).items()
        for node in ast.walk(tree)
        if name.startswith(("inference", "zoo")) and isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load"
    ]
    assert calls and all("allow_pickle=False" in call for _, call in calls), calls


def test_the_notebook_itself_needs_no_onnx_runtime_which_kaggles_image_lacks() -> None:
    cells = json.loads((ROOT / "kernel_template.ipynb").read_text(encoding="utf-8"))["cells"]
    lines = [line.strip() for cell in cells if cell["cell_type"] == "code" for line in cell["source"]]
    imports = [line for line in lines if line.startswith("from inference.")]
    assert len(imports) > 5
    without = "import sys; sys.modules['onnxruntime'] = None\n" + "\n".join(imports)
    subprocess.run([sys.executable, "-c", without], check=True, cwd=ROOT)
