"""The manifest at home: started from labels.csv and train.csv, and grown model by model; nobody writes JSON by hand."""

import dataclasses
from pathlib import Path

import numpy as np

from inference.basics.errors import ManifestError
from inference.basics.files import hash_file
from inference.manifest.file import read_manifest, verify_files, write_manifest
from inference.manifest.labels import Labels, read_group_prefixes, read_labels
from inference.manifest.records import (
    Decision,
    Ensemble,
    FileEntry,
    GroupDecision,
    LabelsEntry,
    Manifest,
    Model,
    OutOfFold,
)
from zoo.f2 import score_counts
from zoo.train_table import Table, read_table

# Where a decision starts until `build_kernel.py ensemble` has fitted it: the 1st place of iMet 2019 took culture
# above 0.28 and tag above 0.10, up to eight labels.
UNFITTED = GroupDecision(threshold=0.2, minimum=0, maximum=8)
LONGEST_PRIOR = 20


def open_manifest(path: Path, labels: Path | None, train: Path | None) -> Manifest:
    """The manifest at `path`, or where there is none yet one without models, from labels.csv and train.csv.

    Nothing is written yet. Raises ManifestError, LabelsError or TableError naming the file.
    """
    if not path.exists():
        if not (labels and train):
            raise ManifestError(f"{path}: no such file; give --labels labels.csv and --train train.csv to start one")
        return create_manifest(path, labels, train)
    manifest = read_manifest(path)
    verify_files([("labels", manifest.labels)], path.parent)
    return manifest


def create_manifest(path: Path, labels: Path, train: Path) -> Manifest:
    """A manifest without models; its groups are the prefixes in labels.csv, its prior comes from train.csv.

    Nothing is written yet. Raises LabelsError or TableError naming the file.
    """
    prefixes = read_group_prefixes(labels)
    names = read_labels(labels, prefixes)
    return Manifest(
        labels=LabelsEntry(**dataclasses.asdict(declare_file(labels, path.parent)), groups=prefixes),
        models=(),
        ensemble=Ensemble({group: {} for group in prefixes}),
        decision=Decision(dict.fromkeys(prefixes, UNFITTED), choose_prior(read_table(train, names), names)),
    )


def choose_prior(table: Table, labels: Labels) -> tuple[int, ...]:
    """The k most frequent labels, with the k whose F2 is highest when every image of train.csv is given them.

    No better answer exists for an image that cannot be read.
    """
    counts = table.targets.sum(axis=0)
    ranked = np.lexsort((labels.ids, -counts))[: min(LONGEST_PRIOR, int((counts > 0).sum()))]
    hits = table.targets[:, ranked].cumsum(axis=1)  # (images, labels given)
    given = np.arange(1, len(ranked) + 1)
    scores = score_counts(hits, given, table.targets.sum(axis=1, keepdims=True)).mean(axis=0)
    return tuple(sorted(labels.ids[column] for column in ranked[: int(scores.argmax()) + 1]))


def append_model(manifest: Manifest, model: Model, path: Path) -> None:
    """Write the manifest with one model more to `path`; the model joins the blend of its groups with weight 1.

    Raises ManifestError.
    """
    groups = manifest.groups_of(model)
    weights = {
        group: {**given, model.name: 1.0} if group in groups else dict(given)
        for group, given in manifest.ensemble.weights.items()
    }
    grown = dataclasses.replace(manifest, models=(*manifest.models, model), ensemble=Ensemble(weights))
    write_manifest(grown, path)


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


def declare_out_of_fold(scores: Path, folder: Path, outputs: int) -> OutOfFold:
    """The entry of NAME.oof.npy and NAME.oof.ids.txt below `folder`, the manifest's; `outputs`: labels of the group.

    Raises ManifestError where they lie elsewhere or are no predictions of that many labels.
    """
    ids = scores.with_suffix(".ids.txt")
    entry = OutOfFold(declare_file(scores, folder), declare_file(ids, folder))
    try:
        array = np.load(scores, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ManifestError(f"{scores}: not an array: {error}") from error
    wanted = (len(ids.read_text(encoding="utf-8").split()), outputs)
    if array.shape != wanted or array.dtype != np.float16:
        raise ManifestError(f"{scores}: found {array.dtype} {array.shape}; wanted float16 {wanted} after {ids.name}")
    return entry
