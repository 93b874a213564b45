"""Adding a trained checkpoint to the manifest."""

from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import ManifestError
from inference.manifest.labels import Labels, read_labels
from inference.manifest.records import ALL, Model, Resize
from inference.manifest.values import ResizeRule
from zoo.edit import append_model, declare_file, declare_out_of_fold, open_manifest
from zoo.networks import load_network


@dataclass(frozen=True)
class Addition:
    """What the user states about a model; the rest is computed."""

    checkpoint: Path
    architecture: str
    """timm's name of the network."""
    image_size: int
    """Side of the square input, px."""
    group: str | None = None
    """Group of labels that the head covers, or 'all'; None: all, if the labels have one group."""
    name: str | None = None
    """None: the file name of the checkpoint."""
    resize: ResizeRule = "squash"
    crop_percentage: float = 1.0
    """Share of the resized image that the centre crop keeps."""
    fold: int | None = None
    """The fold that the model was not trained on."""
    oof: Path | None = None
    """Out-of-fold predictions NAME.oof.npy, with NAME.oof.ids.txt beside it."""


def add_model(path: Path, addition: Addition, labels: Path | None = None, train: Path | None = None) -> Model:
    """Add a model to the manifest at `path`, with its hash and timm's mean, standard deviation and interpolation.

    Its weight in the blend of its groups is 1. `labels` and `train` start a manifest of iMet 2019 if there is none.
    Raises ManifestError, or CheckpointError: the checkpoint does not fit the architecture and the group.
    """
    manifest = open_manifest(path, labels, train)
    table = read_labels(path.parent / manifest.labels.file, manifest.labels.groups)
    group = choose_group(addition.group, table)
    outputs = len(table.columns(group))
    network = load_network(addition.checkpoint, addition.architecture, addition.image_size, outputs)
    model = Model(
        name=addition.name or addition.checkpoint.stem,
        architecture=addition.architecture,
        group=group,
        image_size=addition.image_size,
        mean=network.mean,
        std=network.std,
        interpolation=network.interpolation,
        resize=Resize(addition.resize, addition.crop_percentage),
        fold=addition.fold,
        checkpoint=declare_file(addition.checkpoint, path.parent),
        out_of_fold=declare_out_of_fold(addition.oof, path.parent, outputs, manifest.task) if addition.oof else None,
    )
    append_model(manifest, model, path)
    return model


def choose_group(given: str | None, labels: Labels) -> str:
    """Return the group that a head covers: the given one, or all labels. Raises ManifestError: unknown, or missing."""
    if given is None and len(labels.groups) == 1:
        return ALL
    if given not in (ALL, *labels.groups):
        found = "missing" if given is None else f"found {given!r}"
        raise ManifestError(f"--group: {found}; wanted one of: {ALL}, {', '.join(labels.groups)}")
    return given
