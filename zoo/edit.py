"""Editing the manifest: created from labels.csv and train.csv, extended by one model at a time."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np

from inference.basics.errors import ManifestError
from inference.basics.files import hash_file, read_text
from inference.manifest.decision import Decision, Fitted, GroupDecision
from inference.manifest.file import read_manifest, verify_files, write_manifest
from inference.manifest.labels import Labels, read_group_prefixes, read_labels
from inference.manifest.model import FileEntry, Model, OutOfFold
from inference.manifest.records import Ensemble, LabelsEntry, Manifest
from inference.manifest.task import Task
from inference.manifest.task_checks import list_decision_rules
from zoo.metrics.f_beta import score_counts
from zoo.tables.out_of_fold import split_lines
from zoo.tables.train_table import Table, read_table

LONGEST_PRIOR = 20
SURE = 1e-6  # distance of unfitted probabilities from 0 and 1, which log loss would punish without limit


def open_manifest(path: Path, labels: Path | None, train: Path | None) -> Manifest:
    """Read the manifest at `path`, or create one of iMet 2019 without models from its tables if it is missing.

    Writes nothing. Raises ManifestError, LabelsError or TableError naming the file.
    """
    if not path.exists():
        if not (labels and train):
            raise ManifestError(f"{path}: no such file; give --labels labels.csv and --train train.csv to start one")
        return create_manifest(path, labels, train, Task())
    manifest = read_manifest(path)
    verify_files([("labels", manifest.labels)], path.parent)
    return manifest


def create_manifest(path: Path, labels: Path, train: Path, task: Task) -> Manifest:
    """Create a manifest without models; the prefixes in labels.csv are its groups, train.csv gives its prior.

    Writes nothing. Raises LabelsError or TableError naming the file.
    """
    prefixes = read_group_prefixes(labels)
    names = read_labels(labels, prefixes)
    return Manifest(
        labels=LabelsEntry(**dataclasses.asdict(declare_file(labels, path.parent)), groups=prefixes),
        models=(),
        ensemble=Ensemble({group: {} for group in prefixes}),
        decision=choose_decision(task, names, read_table(train, names, task)),
        task=task,
    )


def choose_decision(task: Task, labels: Labels, table: Table) -> Decision:
    """Return the decision until `build_kernel.py ensemble` fits one: plain rules, and the prior of train.csv.

    The threshold of labels is 1 / (1 + beta²), which is best for F-beta if probabilities are right and most images are
    predicted well: 0.5 for F1, 0.2 for F2. There are at most as many labels as a training image has.
    """
    if task.selects_labels:
        counts = {group: table.targets[:, columns].sum(axis=1) for group, columns in labels.groups.items()}
        threshold = round(1 / (1 + task.metric.beta**2), 3)
        groups = {group: GroupDecision(threshold, 0, max(int(own.max()), 1)) for group, own in counts.items()}
        return Decision(groups, choose_prior(table, labels, task.metric.beta))
    rule = list_decision_rules(task)[0]
    means = table.targets.mean(axis=0, dtype=np.float64)
    fitted = Fitted(
        clip=SURE if task.metric.name in ("log_loss", "kl_divergence") else 0.0, normalise=task.submission.sum_to_one
    )
    return Decision({}, {}, rule, fitted=fitted, prior_scores=tuple(round(float(mean), 9) for mean in means))


def choose_prior(table: Table, labels: Labels, beta: float) -> dict[str, tuple[int, ...]]:
    """Return the prior labels by group: the k most frequent of all, with the k that has the best F-beta on train.csv.

    All groups together are the best prediction for an image that cannot be read. A group alone serves an image whose
    other groups are predicted. It then has more labels than the best few, but lacks none that would help: with p the
    share of images that have a label, one more label raises F, (1 + b²) hits / (b² true + predicted), if p is above
    hits / (b² true + predicted), which is lowest when nothing is predicted.
    """
    counts = table.targets.sum(axis=0)
    ranked = np.lexsort((labels.ids, -counts))[: min(LONGEST_PRIOR, max(int((counts > 0).sum()), 1))]
    hits = table.targets[:, ranked].cumsum(axis=1)  # (images, labels predicted)
    predicted = np.arange(1, len(ranked) + 1)
    scores = score_counts(hits, predicted, table.targets.sum(axis=1, keepdims=True), beta).mean(axis=0)
    chosen = set(ranked[: int(scores.argmax()) + 1].tolist())
    return {
        group: tuple(sorted(labels.ids[column] for column in chosen.intersection(columns)))
        for group, columns in labels.groups.items()
    }


def append_model(manifest: Manifest, model: Model, path: Path) -> None:
    """Write the manifest with an added model to `path`; the rest of it stays as it is, also a fitted second stage.

    The model's weight in the blend of its groups is the mean of the weights above 0 there, 1 if there is none; a model
    of 'features' has none. Raises ManifestError.
    """
    write_manifest(grow_manifest(manifest, model), path)


def grow_manifest(manifest: Manifest, model: Model) -> Manifest:
    """Return the manifest with an added model; see `append_model`."""
    groups = manifest.groups_of(model)
    weights = {
        group: {**given, model.name: _choose_weight(given.values())} if group in groups else dict(given)
        for group, given in manifest.ensemble.weights.items()
    }
    ensemble = dataclasses.replace(manifest.ensemble, weights=weights)
    return dataclasses.replace(manifest, models=(*manifest.models, model), ensemble=ensemble)


def _choose_weight(others: Collection[float]) -> float:
    used = [weight for weight in others if weight > 0]
    return sum(used) / len(used) if used else 1.0


def declare_file(file: Path, folder: Path) -> FileEntry:
    """Return the entry of a file in the manifest's `folder`; raises ManifestError: missing, or elsewhere."""
    if not file.is_file():
        raise ManifestError(f"{file}: no such file")
    try:
        inside = file.resolve().relative_to(folder.resolve())
    except ValueError:
        raise ManifestError(
            f"{file}: lies outside the manifest's folder {folder.resolve()}; move it there or choose another --manifest"
        ) from None
    return FileEntry(inside.as_posix(), hash_file(file))


def declare_out_of_fold(scores: Path, folder: Path, outputs: int, task: Task, dtype: str | None = None) -> OutOfFold:
    """Return the entry of NAME.oof.npy and NAME.oof.ids.txt in the manifest's `folder`.

    `outputs`: scores per image; `dtype`: their type, see `Manifest.score_dtype`; None: the task's. Raises
    ManifestError: a file is missing or elsewhere, or its shape or dtype is wrong.
    """
    ids = scores.with_suffix(".ids.txt")
    entry = OutOfFold(declare_file(scores, folder), declare_file(ids, folder))
    try:
        array = np.load(scores, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ManifestError(f"{scores}: not an array: {error}") from error
    wanted_type, wanted = dtype or task.score_dtype, (len(split_lines(read_text(ids))), outputs)
    if array.shape != wanted or array.dtype != wanted_type:
        raise ManifestError(
            f"{scores}: found {array.dtype} {array.shape}; wanted {wanted_type} {wanted} after {ids.name}"
        )
    return entry
