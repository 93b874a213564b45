"""Files that are no checkpoint, and pickles, of which no code may run."""

import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.basics.errors import CheckpointError
from tests.zoo.checkpoints.forms import make_network
from zoo.checkpoints.load import load_file

SAVE = "save model.state_dict() instead: torch.save(model.state_dict(), 'weights.pth')"
ran: list[str] = []


def run_code(text: str) -> None:
    ran.append(text)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return run_code, ("code of a checkpoint",)


def write_zip(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"")

    return write


def write_text(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def write_script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)  # type: ignore[no-untyped-call]


# name: (how it is written, the message after the path)
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (lambda path: None, "no such checkpoint"),
    "folder": (Path.mkdir, "a folder; wanted one file of weights, such as weights.pth or model.safetensors"),
    "empty": (write_text(""), "the file is empty; copy it again"),
    "page": (
        write_text("\n<!DOCTYPE html><html><body>sign in</body></html>"),
        "a web page in place of the weights; download the file itself, which may need a login",
    ),
    "pointer": (
        write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1234\n"),
        "a Git LFS pointer in place of the weights; fetch them with `git lfs pull`",
    ),
    "index": (
        write_text('{"metadata": {}, "weight_map": {}}'),
        "a JSON file; wanted one file of weights, such as weights.pth or model.safetensors",
    ),
    "keras": (
        lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)),
        "a file of Keras (HDF5); wanted weights of a torch network",
    ),
    "zip": (
        write_zip("folder/weights.pth"),
        "a zip archive without weights of torch.save; unpack it, or choose the file in it",
    ),
    "garbage": (
        write_text("garbage"),
        "not a checkpoint: it starts with b'garbage'; wanted a file of torch.save or safetensors",
    ),
    "evil": (
        lambda path: torch.save({"state_dict": Evil()}, path),
        f"a pickle that holds more than weights ({__name__}.run_code), which may run code; {SAVE}",
    ),
    "evil_pickle": (
        lambda path: path.write_bytes(pickle.dumps({"weights": Evil()})),
        f"a pickle that holds more than weights, which may run code; {SAVE}",
    ),
    "whole_network": (
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        f"a pickle of a whole network (torch.nn.modules.linear.Linear), which may run code; {SAVE}",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_without_weights_is_refused_by_what_it_is(name: str, tmp_path: Path) -> None:
    write, message = REFUSED[name]
    for path in (tmp_path / "w.pth", tmp_path / "w.safetensors"):
        write(path)
        with pytest.raises(CheckpointError) as error:
            load_file(path)
        assert str(error.value) == f"{path}: {message}"
    assert ran == []


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    write_script(tmp_path / "w.pt")
    with pytest.raises(
        CheckpointError, match=r"w\.pt: a TorchScript program; load it with torch\.jit\.load where it was"
    ):
        load_file(tmp_path / "w.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_cut_file_is_refused(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(make_network().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        load_file(path)


def test_a_configuration_of_omegaconf_is_passed_over_without_its_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library, home = types.ModuleType("omegaconf"), types.ModuleType("omegaconf.dictconfig")

    class DictConfig:
        def __init__(self) -> None:
            self.lr = 0.1

        def __setstate__(self, state: dict[str, Any]) -> None:
            run_code("of omegaconf")

    DictConfig.__module__, DictConfig.__qualname__ = home.__name__, "DictConfig"
    vars(home)["DictConfig"] = DictConfig
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "omegaconf", library)
        patch.setitem(sys.modules, "omegaconf.dictconfig", home)
        torch.save({"state_dict": {"a": torch.ones(2)}, "hyper_parameters": DictConfig()}, tmp_path / "w.ckpt")
    allowed = torch.serialization.get_safe_globals()
    loaded = load_file(tmp_path / "w.ckpt")
    assert torch.equal(loaded["state_dict"]["a"], torch.ones(2))
    assert ran == []
    assert set(torch.serialization.get_safe_globals()) == set(allowed)
