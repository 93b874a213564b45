"""Loads what a checkpoint file holds, without running code of it."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from inference.basics.errors import CheckpointError
from zoo.text import flatten_message

SAVE = "torch.save(model.state_dict(), 'weights.pth')"
# What training code stores beside the weights. None of it is needed, so inert objects take its place, and neither
# these libraries nor their code are loaded.
IGNORED = (
    "argparse.Namespace",
    "datetime.datetime",
    "datetime.timedelta",
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "frozenset", "int", "list", "str", "tuple", "type")),
    *(f"{home}.{kind}Path" for home in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
    *(f"{home}.Pure{kind}Path" for home in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
    *(f"{home}.multiarray.{name}" for home in ("numpy._core", "numpy.core") for name in ("scalar", "_reconstruct")),
    *(f"{home}.numeric._frombuffer" for home in ("numpy._core", "numpy.core")),
    "numpy.dtype",
    "numpy.ndarray",
    "typing.Any",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.base.Node",
    "omegaconf.base.SCMode",
    "omegaconf.base.UnionNode",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String")
    ),
)
# Dicts of other types are read as dicts: the weights may be in them.
DICTS = (
    "collections.defaultdict",
    *(
        f"{home}.AttributeDict"
        for home in (
            "lightning.fabric.utilities.data",
            "lightning_fabric.utilities.data",
            "lightning.pytorch.utilities.parsing",
            "pytorch_lightning.utilities.parsing",
        )
    ),
)


class Inert:
    """Takes the place of an object that is not needed: it keeps nothing and runs nothing."""

    def __init__(self, *_arguments: Any) -> None:
        pass

    def __new__(cls, *_arguments: Any) -> "Inert":
        return super().__new__(cls)

    def __setstate__(self, _state: Any) -> None:
        pass


class AsDict:
    """Takes the place of a type of dict: calling it gives an empty dict, which is then filled."""

    def __new__(cls, *_arguments: Any) -> dict[str, Any]:  # type: ignore[misc]
        return {}


REPLACED: list[Any] = [*((Inert, name) for name in IGNORED), *((AsDict, name) for name in DICTS)]


def load_file(path: Path) -> Any:
    """Return what a file of safetensors or torch.save holds; its name and extension do not matter.

    Raises CheckpointError naming the file: no such file, something else than weights, or a pickle that would run code.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; wanted one file of weights, such as weights.pth or model.safetensors")
    try:
        with path.open("rb") as file:
            start = file.read(512)
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size:  # bytes of the header
            return safetensors.torch.load_file(path)
        if reason := _name_other_form(path, start):
            raise CheckpointError(f"{path}: {reason}")
        with warnings.catch_warnings(), torch.serialization.safe_globals(REPLACED):
            warnings.simplefilter("ignore")  # about pickle protocols; unreadable files raise below
            with path.open("rb") as file:  # not the path: torch goes by its extension
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_name_refused(path)}") from error
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: not a checkpoint: {flatten_message(error)[:200]}") from error


def _name_other_form(path: Path, start: bytes) -> str:
    """Return what the file is, and what to do, if its first bytes say that it holds no weights; else ''."""
    text = start.lstrip().lower()
    if not start:
        return "the file is empty; copy it again"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the weights; fetch them with `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page in place of the weights; download the file itself, which may need a login"
    if text.startswith((b"{", b"[")):
        return "a JSON file; wanted one file of weights, such as weights.pth or model.safetensors"
    if start.startswith(b"\x89HDF"):
        return "a file of Keras (HDF5); wanted weights of a torch network"
    if start.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return f"a TorchScript program; load it with torch.jit.load where it was made, and save its weights: {SAVE}"
        if not any(name.endswith("data.pkl") for name in names):
            return "a zip archive without weights of torch.save; unpack it, or choose the file in it"
    if not start.startswith((b"PK", b"\x80")):
        return f"not a checkpoint: it starts with {start[:12]!r}; wanted a file of torch.save or safetensors"
    return ""


def _name_refused(path: Path) -> str:
    """Return why a pickle was refused."""
    try:
        with path.open("rb") as file:
            unknown = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        found = sorted(set(unknown) - {name for _, name in REPLACED})
    except Exception:  # a pickle of another protocol, or no pickle
        found = []
    reason = "a pickle that holds more than weights"
    if any(".models." in name or name.startswith("torch.nn.modules") for name in found):
        reason = "a pickle of a whole network"
    named = f" ({', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''})" if found else ""
    return f"{reason}{named}, which may run code; save model.state_dict() instead: {SAVE}"
