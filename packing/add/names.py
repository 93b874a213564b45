"""Names of an added model: its own, from its file, and that of its member, from its fold."""

import re
from pathlib import Path

from inference.basics.errors import ManifestError
from inference.manifest.model import Model, name_member
from inference.manifest.records import Manifest


def make_name(file: Path) -> str:
    """Return a model's name from the name of its file: what a name cannot have becomes `_`.

    `epoch=3-val_f2=0.61.ckpt` gives `epoch_3-val_f2_0.61`. Raises ManifestError: nothing is left.
    """
    name = re.sub(r"[^\w.-]+", "_", file.stem, flags=re.ASCII).strip("_")
    if not name:
        raise ManifestError(f"{file}: no letter, digit, '.' or '-' for the model's name; give one with --name")
    return name


def choose_name(given: str | None, file: Path, manifest: Manifest) -> str:
    """Return the name of a new model. Raises ManifestError: another model has it."""
    name = given or make_name(file)
    if any(name == model.name for model in manifest.models):
        raise ManifestError(
            f"{file}: the manifest already has a model {name}; give this one another name with --name, or remove the "
            "other from `models`"
        )
    return name


def choose_member(given: str | None, model: Model, manifest: Manifest) -> str | None:
    """Return the member of a new model: the given one, or NAME of a fold K named NAME_fK; None: a member of its own.

    The latter only if the models that already have this member are other folds of the same network.
    """
    if given is not None or model.fold is None:
        return given
    name = model.name.removesuffix(f"_f{model.fold}")
    if name in ("", model.name):
        return None
    others = [other for other in manifest.models if name_member(other) == name]
    is_alike = all(
        other.member == name and other.fold != model.fold and _list_traits(other) == _list_traits(model)
        for other in others
    )
    return name if is_alike else None


def _list_traits(model: Model) -> list[object]:
    arguments = model.factory and dict(model.factory.arguments)
    return [model.architecture, arguments, model.size, model.group, model.outputs, model.channels]
