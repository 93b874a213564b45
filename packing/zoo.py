"""The manifest at home: models are added by command, nobody writes JSON by hand."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from timm.data.config import resolve_data_config

from inference.errors import CheckpointError, ManifestError, TableError
from inference.files import hash_file
from inference.labels import Labels, read_group_prefixes, read_labels
from inference.manifest import (
    ALL,
    Decision,
    Ensemble,
    FileEntry,
    GroupDecision,
    LabelsEntry,
    Manifest,
    Model,
    OutOfFold,
    Resize,
    read_manifest,
    verify_files,
    write_manifest,
)
from inference.tables import parse_label_ids, read_columns
from packing.checkpoints import load_model

# Where a decision starts until `python -m training decide` has fitted it: the 1st place of iMet 2019 took culture
# above 0.28 and tag above 0.10, up to eight labels.
UNFITTED = GroupDecision(threshold=0.2, minimum=0, maximum=8)
LONGEST_PRIOR = 20


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


def create_manifest(path: Path, labels: Path, train: Path) -> Manifest:
    """A manifest without models; its groups are the prefixes in labels.csv, its prior comes from train.csv.

    Nothing is written yet. Raises LabelsError or TableError naming the file.
    """
    prefixes = read_group_prefixes(labels)
    return Manifest(
        labels=LabelsEntry(**dataclasses.asdict(declare_file(labels, path.parent)), groups=prefixes),
        models=(),
        ensemble=Ensemble({group: {} for group in prefixes}),
        decision=Decision(dict.fromkeys(prefixes, UNFITTED), choose_prior(train, read_labels(labels, prefixes))),
    )


def choose_prior(train: Path, labels: Labels) -> tuple[int, ...]:
    """The k most frequent labels, with the k whose F2 is highest when every image of train.csv is given them.

    That is the best that can be said of an image that cannot be read. Raises TableError.
    """
    rows = [set(parse_label_ids(cell)) for (cell,) in read_columns(train, ("attribute_ids",))]
    counts = Counter(label for row in rows for label in row)
    unknown = counts.keys() - set(labels.ids)
    if unknown or not counts:
        raise TableError(f"{train}: " + (f"label id {min(unknown)} is not in labels.csv" if unknown else "no labels"))
    ranked = [label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:LONGEST_PRIOR]
    sizes = np.array([len(row) for row in rows])
    hits = np.cumsum([[label in row for row in rows] for label in ranked], axis=0)  # (labels given, images)
    given = np.arange(1, len(ranked) + 1)[:, None]
    scores = (5 * hits / (4 * sizes + given)).mean(axis=1)
    return tuple(sorted(ranked[: int(scores.argmax()) + 1]))


def add_model(path: Path, addition: Addition, labels: Path | None = None, train: Path | None = None) -> Model:
    """Append a model to the manifest at `path`, with its hash and timm's mean, deviation and interpolation.

    It joins the blend of its groups with weight 1. Where there is no manifest yet, `labels` and `train` start one.
    Raises ManifestError, or CheckpointError where the checkpoint does not fit the architecture and the group.
    """
    manifest = _open_manifest(path, labels, train)
    table = read_labels(path.parent / manifest.labels.file, manifest.labels.groups)
    if addition.group not in (ALL, *table.groups):
        raise ManifestError(f"no group {addition.group!r}; wanted one of: {ALL}, {', '.join(table.groups)}")
    outputs = len(table.columns(addition.group))
    network = load_model(addition.checkpoint, addition.architecture, outputs, addition.image_size)
    timms: dict[str, Any] = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    if timms["interpolation"] not in ("bilinear", "bicubic"):
        raise CheckpointError(f"{addition.architecture}: wants {timms['interpolation']}; the kernel has no such filter")
    model = Model(
        name=addition.name,
        architecture=addition.architecture,
        group=addition.group,
        image_size=addition.image_size,
        mean=tuple(timms["mean"]),
        std=tuple(timms["std"]),
        interpolation=timms["interpolation"],
        resize=addition.resize,
        fold=addition.fold,
        checkpoint=declare_file(addition.checkpoint, path.parent),
        out_of_fold=_declare_out_of_fold(addition.oof, path.parent, outputs) if addition.oof else None,
    )
    groups = manifest.groups_of(model)
    weights = {
        group: {**given, model.name: 1.0} if group in groups else dict(given)
        for group, given in manifest.ensemble.weights.items()
    }
    grown = dataclasses.replace(manifest, models=(*manifest.models, model), ensemble=Ensemble(weights))
    write_manifest(grown, path)
    return model


def declare_file(file: Path, folder: Path) -> FileEntry:
    """The entry of a file below `folder`, the manifest's; raises ManifestError where it lies elsewhere."""
    if not file.is_file():
        raise ManifestError(f"{file}: no such file")
    try:
        inside = file.resolve().relative_to(folder.resolve())
    except ValueError:
        raise ManifestError(
            f"{file}: lies outside the manifest's folder {folder.resolve()}; move it there or choose another --manifest"
        ) from None
    return FileEntry(inside.as_posix(), hash_file(file))


def _open_manifest(path: Path, labels: Path | None, train: Path | None) -> Manifest:
    if not path.exists():
        if not (labels and train):
            raise ManifestError(f"{path}: no such file; give --labels labels.csv and --train train.csv to start one")
        return create_manifest(path, labels, train)
    manifest = read_manifest(path)
    verify_files([("labels", manifest.labels)], path.parent)
    return manifest


def _declare_out_of_fold(scores: Path, folder: Path, outputs: int) -> OutOfFold:
    ids = scores.with_suffix(".ids.txt")
    entry = OutOfFold(declare_file(scores, folder), declare_file(ids, folder))
    try:
        array = np.load(scores, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ManifestError(f"{scores}: not an array: {error}") from error
    wanted = (len(ids.read_text(encoding="utf-8").split()), outputs)
    if array.shape != wanted or array.dtype != np.float16:
        raise ManifestError(f"{scores}: found {array.dtype} {array.shape}, wanted float16 {wanted} after {ids.name}")
    return entry
