"""Networks that a function in a file of one's own builds."""

import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from inference.basics.errors import CheckpointError
from zoo.architectures.factory import build_module


def write(folder: Path, text: str, name: str = "networks.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(textwrap.dedent(text))
    return folder / name


NEIGHBOUR = """
    from torch import nn
    import layers

    def build(outputs, width=4):
        from layers import late
        return nn.Sequential(nn.Linear(3, width), nn.Linear(width, layers.count(outputs) + late))
    """


def test_a_function_builds_with_its_arguments_and_its_neighbours(tmp_path: Path) -> None:
    found = []
    for folder, more in ((tmp_path / "mine", 0), (tmp_path / "theirs", 2)):
        write(folder, f"late = 1\ndef count(outputs):\n    return outputs + {more}\n", "layers.py")
        found.append(build_module(write(folder, NEIGHBOUR), "build", {"width": 8}, 5))
    assert [(net[0].out_features, net[1].out_features) for net in found] == [(8, 6), (8, 8)]  # type: ignore[index]


def test_imports_of_a_factory_leave_no_names_behind(tmp_path: Path) -> None:
    modules, path = dict(sys.modules), list(sys.path)
    # The folder hides modules of the same names, even those of an installed library, but only while it is built.
    write(tmp_path, "def count(outputs):\n    return outputs\nlate = 0\n", "layers.py")
    write(tmp_path, "own = True", "timm.py")
    write(tmp_path, "import timm\nassert timm.own\n" + textwrap.dedent(NEIGHBOUR))
    build_module(tmp_path / "networks.py", "build", {}, 5)
    assert sys.path == path
    left = {name for name in sys.modules.keys() - modules.keys() if "torch" not in name}
    assert all(name.startswith("vitrine_factory_") for name in left)
    assert sys.modules["timm"] is timm


def test_a_dataclass_and_an_old_module_of_the_same_name_are_no_trouble(tmp_path: Path) -> None:
    text = """
        from __future__ import annotations
        from dataclasses import dataclass
        from torch import nn

        @dataclass
        class Options:
            width: int = 6

        def build(outputs):
            return nn.Linear(Options().width, outputs)
        """
    for name in ("torch.py", "json.py", "my networks.py"):
        assert build_module(write(tmp_path / name.replace(" ", ""), text, name), "build", {}, 2).in_features == 6


ERRORS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "no function": (
        "import torch\ndef make(outputs): pass\nclass Net(torch.nn.Module): pass\n_hidden = print\n",
        "build",
        {},
        "{file}: found no function 'build'; it has make, Net",
    ),
    "no function at all": ("build = 3\n", "build", {}, "{file}: found no function 'build'; it has none"),
    "raises": (
        "def help(n):\n    return 1 / n\n\ndef build(outputs):\n    return help(0)\n",
        "build",
        {},
        "{file}:2: ZeroDivisionError: division by zero",
    ),
    "raises in a library": (
        "import torch\ndef build(outputs):\n    return torch.nn.Linear(\n        3, 'many')\n",
        "build",
        {},
        "{file}:3: TypeError: ",
    ),
    "raises at import": (
        "import nothing_of_this_name\n",
        "build",
        {},
        "{file}:1: ModuleNotFoundError: No module named",
    ),
    "exits": (
        "import sys\ndef build(outputs):\n    sys.exit('weights?')\n",
        "build",
        {},
        "{file}:3: SystemExit: weights?",
    ),
    "syntax": ("def build(outputs):\n    return (\n", "build", {}, "{file}:2: SyntaxError: '(' was never closed"),
    "returns": (
        "def build(outputs):\n    return [outputs]\n",
        "build",
        {},
        "networks.py:build returned list; wanted a torch.nn.Module",
    ),
    "argument": (
        "def build(outputs, pool='avg'):\n    pass\n",
        "build",
        {"pol": "gem"},
        "networks.py:build(outputs, pool='avg') does not take (outputs, pol='gem'): "
        "got an unexpected keyword argument 'pol'",
    ),
    "no outputs": (
        "def build():\n    pass\n",
        "build",
        {},
        "networks.py:build() does not take (outputs): too many positional arguments",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_names_the_file_and_the_line(name: str, tmp_path: Path) -> None:
    text, function, arguments, message = ERRORS[name]
    file = write(tmp_path, text)
    with pytest.raises(CheckpointError) as error:
        build_module(file, function, arguments, 5)
    assert str(error.value).startswith(f"`factory`: {message.format(file=file)}")
    assert "\n" not in str(error.value)
    assert sys.path[0] != str(tmp_path)


def test_a_missing_file_and_one_that_is_no_python_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"networks\.py: no such file$"):
        build_module(tmp_path / "networks.py", "build", {}, 5)
    with pytest.raises(CheckpointError, match=r"notes\.txt: not a Python file; wanted a name that ends in \.py$"):
        build_module(write(tmp_path, "", "notes.txt"), "build", {}, 5)


def test_a_module_of_torch_is_returned_as_it_is(tmp_path: Path) -> None:
    module = build_module(
        write(tmp_path, "from torch.nn import Linear\nbuild = lambda n: Linear(3, n)\n"), "build", {}, 5
    )
    assert isinstance(module, torch.nn.Linear) and module.out_features == 5
