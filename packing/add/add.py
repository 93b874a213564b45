"""A checkpoint from elsewhere joins the manifest at home by command."""

from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import ManifestError
from inference.manifest.labels import read_labels
from inference.manifest.records import ALL, Model, Resize
from zoo.edit import append_model, declare_file, declare_out_of_fold, open_manifest
from zoo.networks import load_network


@dataclass(frozen=True)
class Addition:
    """What `build_kernel.py add` is told of a model; the rest is computed."""

    checkpoint: Path
    architecture: str
    image_size: int
    group: str
    name: str
    resize: Resize
    fold: int | None = None
    oof: Path | None = None


def add_model(path: Path, addition: Addition, labels: Path | None = None, train: Path | None = None) -> Model:
    """Append a model to the manifest at `path`, with its hash and timm's mean, deviation and interpolation.

    It joins the blend of its groups with weight 1. Where there is no manifest yet, `labels` and `train` start one.
    Raises ManifestError, or CheckpointError where the checkpoint does not fit the architecture and the group.
    """
    manifest = open_manifest(path, labels, train)
    table = read_labels(path.parent / manifest.labels.file, manifest.labels.groups)
    if addition.group not in (ALL, *table.groups):
        raise ManifestError(f"no group {addition.group!r}; wanted one of: {ALL}, {', '.join(table.groups)}")
    outputs = len(table.columns(addition.group))
    network = load_network(addition.checkpoint, addition.architecture, addition.image_size, outputs)
    model = Model(
        name=addition.name,
        architecture=addition.architecture,
        group=addition.group,
        image_size=addition.image_size,
        mean=network.mean,
        std=network.std,
        interpolation=network.interpolation,
        resize=addition.resize,
        fold=addition.fold,
        checkpoint=declare_file(addition.checkpoint, path.parent),
        out_of_fold=declare_out_of_fold(addition.oof, path.parent, outputs) if addition.oof else None,
    )
    append_model(manifest, model, path)
    return model
