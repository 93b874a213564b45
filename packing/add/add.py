"""Adding a trained network to the manifest."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import CheckpointError, ExportError
from inference.manifest.labels import Labels, read_labels
from inference.manifest.model import Model
from inference.manifest.records import Manifest
from packing.add.declare import Addition, check_declared, declare_model
from packing.add.external import fold_weights
from packing.add.foreign import check_foreign, normalise_foreign
from packing.add.names import choose_name
from zoo.edit import append_model, declare_file, declare_out_of_fold, open_manifest
from zoo.networks import load_network, read_design


@dataclass(frozen=True)
class Added:
    """A model that was added."""

    model: Model
    form: str
    """What its checkpoint was recognised as."""
    notes: tuple[str, ...]
    """What the user may not expect."""


def add_model(path: Path, addition: Addition, labels: Path | None = None, train: Path | None = None) -> Added:
    """Add a model to the manifest at `path`, after its network has run once.

    Its mean, std and interpolation are those stated, else the network's. `labels` and `train` start a manifest of iMet
    2019 if there is none. Raises VitrineError in one line, and leaves the manifest as it was.
    """
    manifest = open_manifest(path, labels, train)
    table = read_labels(path.parent / manifest.labels.file, manifest.labels.groups)
    name = choose_name(addition.name, addition.checkpoint, manifest)
    notes = []
    if addition.name is None and name != addition.checkpoint.stem:
        notes.append(f"it is named {name}; choose another name with --name")
    model = declare_model(addition, name, manifest, table, path.parent)
    check_declared(manifest, model)
    if addition.oof:
        outputs, dtype = table.count_outputs(model), manifest.score_dtype(model)
        entry = declare_out_of_fold(addition.oof, path.parent, outputs, manifest.task, dtype)
        model = dataclasses.replace(model, out_of_fold=entry)
    if model.layout is None:
        model, form = open_torch(addition, model, path.parent, table)
        append_model(manifest, model, path)
    else:
        model, form, folded = add_foreign(addition, model, path, manifest, table)
        notes += [f"its weights were in other files; all of it is in {folded} now"] if folded else []
    if manifest.ensemble.fitted_for is not None:
        notes.append(
            f"the second stage was fitted without {name}: run `build_kernel.py ensemble` again; until then `pack` "
            "wants --without-stackers"
        )
    return Added(model, form, tuple(notes))


def open_torch(addition: Addition, model: Model, home: Path, labels: Labels) -> tuple[Model, str]:
    """Load and run the network; return the model with what it asks for, and the form of its checkpoint.

    Raises CheckpointError naming the checkpoint or the model.
    """
    try:
        network = load_network(addition.checkpoint, read_design(model, home, labels), model.ema)
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(
            text if text.startswith(str(addition.checkpoint)) else f"model {model.name}: {text}"
        ) from error
    wanted = dataclasses.replace(
        model,
        mean=network.mean if addition.mean is None else model.mean,
        std=network.std if addition.std is None else model.std,
        interpolation=addition.interpolation or network.interpolation,
    )
    return wanted, network.form


def add_foreign(
    addition: Addition, model: Model, path: Path, manifest: Manifest, labels: Labels
) -> tuple[Model, str, Path | None]:
    """Check a graph made elsewhere, and write the manifest with it, and with all its weights in one file.

    Returns the model, what its graph is, and the new file if there is one. Raises OptionError or ExportError.
    """
    model = normalise_foreign(addition.checkpoint, model, addition.mean is not None, addition.std is not None)
    whole = addition.checkpoint.with_name(f"{model.name}.whole.onnx")
    is_folded = fold_weights(addition.checkpoint, whole)
    try:
        file = whole if is_folded else addition.checkpoint
        model = dataclasses.replace(model, checkpoint=declare_file(file, path.parent))
        form = check_foreign(file, model, labels, manifest)
        append_model(manifest, model, path)
    except BaseException as error:
        if is_folded:
            whole.unlink()
        if isinstance(error, ExportError):  # it names the user's file
            raise ExportError(str(error).replace(str(whole), str(addition.checkpoint))) from error
        raise
    return model, form, whole if is_folded else None
