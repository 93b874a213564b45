"""Networks of one's own, which a function in a Python file builds."""

import contextlib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from inference.basics.errors import CheckpointError
from zoo.text import flatten_message


def build_module(file: Path, function: str, arguments: Mapping[str, Any], outputs: int) -> torch.nn.Module:
    """Call FUNCTION(outputs, **arguments) of a Python file, which may import its neighbours.

    Raises CheckpointError naming the file, and the line if its code fails.
    """
    if not file.is_file():
        raise CheckpointError(f"`factory`: {file}: no such file")
    with _import_neighbours(file):
        loaded = _load_file(file)
        build = getattr(loaded, function, None)
        if not callable(build):
            raise CheckpointError(
                f"`factory`: {file}: found no function {function!r}; it has {_list_functions(loaded)}"
            )
        _check_arguments(build, f"{file.name}:{function}", outputs, arguments)
        try:
            module = build(outputs, **arguments)
        except (Exception, SystemExit) as error:
            raise CheckpointError(f"`factory`: {_locate(error, file)}") from error
    if not isinstance(module, torch.nn.Module):
        raise CheckpointError(
            f"`factory`: {file.name}:{function} returned {type(module).__name__}; wanted a torch.nn.Module"
        )
    return module


@contextlib.contextmanager
def _import_neighbours(file: Path) -> Iterator[None]:
    """Let code import the modules beside its file; afterwards `sys.modules` is as before.

    Two teams may each have a `layers.py` beside their factory, so the names must not stay.
    """
    folder = file.parent
    near = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    near -= sys.stdlib_module_names | {file.stem}

    def is_near(name: str) -> bool:
        return name.partition(".")[0] in near

    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if is_near(name)}
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [one for one in sys.modules if is_near(one)]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _load_file(file: Path) -> ModuleType:
    # A name of its own per file: the file may be called as a library is. It stays, because dataclasses, pickle and
    # inspect look a class's module up by its name.
    name = f"vitrine_factory_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise CheckpointError(f"`factory`: {file}: not a Python file; wanted a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CheckpointError(f"`factory`: {_locate(error, file)}") from error
    return module


def _check_arguments(build: Callable[..., Any], name: str, outputs: int, arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(build)
    except (TypeError, ValueError):  # some built-in functions have none; the call says what is wrong
        return
    try:
        signature.bind(outputs, **arguments)
    except TypeError as error:
        given = ", ".join(["outputs", *(f"{key}={value!r}" for key, value in arguments.items())])
        raise CheckpointError(
            f"`factory`: {name}{signature} does not take ({given}): {flatten_message(error)}"
        ) from error


def _list_functions(module: ModuleType) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return ", ".join(own) or "none"


def _locate(error: BaseException, file: Path) -> str:
    """Return FILE:LINE of the last line of the user's own code, and the error in one line."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {message}"
    frames = traceback.extract_tb(error.__traceback__)
    home = file.resolve().parent
    own = [
        frame
        for frame in frames
        if Path(frame.filename).resolve().is_relative_to(home) and "site-packages" not in frame.filename
    ]
    return f"{own[-1].filename}:{own[-1].lineno}: {message}" if own else f"{file}: {message}"
