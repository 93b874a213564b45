"""Reading a bundle: its manifest, labels and files."""

from collections.abc import Mapping
from pathlib import Path

from inference.basics.errors import InputError, ManifestError
from inference.manifest.file import (
    MANIFEST_NAME,
    NO_DATASETS,
    list_bundle_files,
    list_datasets,
    read_dataset,
    read_manifest,
    refuse_outside,
    verify_files,
)
from inference.manifest.labels import Labels, read_labels
from inference.manifest.records import Manifest
from inference.manifest.references import check_coverage


def read_bundle(folder: Path, attached: Mapping[str, Path] = NO_DATASETS) -> tuple[Manifest, Labels]:
    """Read the manifest and the labels of a bundle, and verify the hashes of all its files.

    `attached`: OWNER/SLUG -> folder of the datasets that have further files of models. Raises ManifestError naming the
    key; LabelsError naming the label.
    """
    manifest, labels, lost = open_bundle(folder, attached)
    for reason in lost.values():
        raise ManifestError(reason)
    return manifest, labels


def open_bundle(folder: Path, attached: Mapping[str, Path] = NO_DATASETS) -> tuple[Manifest, Labels, dict[str, str]]:
    """As `read_bundle`, but bear attached datasets that somebody has changed: also return model -> what is wrong.

    Raises ManifestError too if a group has no model left.
    """
    try:
        refuse_outside(folder / MANIFEST_NAME, folder)
    except InputError as error:
        raise ManifestError(str(error)) from error
    manifest = read_manifest(folder / MANIFEST_NAME)
    try:
        check_coverage(manifest)
        for index, model in enumerate(manifest.models):
            if "fp32" not in model.onnx:
                raise ManifestError(f"`models[{index}].onnx.fp32`: missing; export model {model.name}, then pack")
    except ManifestError as error:
        raise ManifestError(f"{MANIFEST_NAME}: {error}") from error
    check_attached(manifest, attached)
    verify_files([(key, entry) for key, entry in list_bundle_files(manifest) if not read_dataset(entry)], folder)
    lost = find_lost(manifest, folder, attached)
    return *read_declared(folder), lost


def check_attached(manifest: Manifest, attached: Mapping[str, Path]) -> None:
    """Check that the datasets with files of models are attached. Raises ManifestError naming dataset and models."""
    for dataset in list_datasets(manifest):
        if dataset not in attached:
            names = [model.name for model in manifest.models if dataset in map(read_dataset, model.onnx.values())]
            raise ManifestError(
                f"{MANIFEST_NAME}: dataset {dataset} is not attached, which has the models {', '.join(names)}; attach "
                f"it with Add Input in the notebook, or name its folder with --attached {dataset}=DIR"
            )


def find_lost(manifest: Manifest, folder: Path, attached: Mapping[str, Path]) -> dict[str, str]:
    """Verify the files in attached datasets; return model -> what is wrong.

    Raises ManifestError if the others do not cover every group: then there is nothing to submit.
    """
    lost: dict[str, str] = {}
    for index, model in enumerate(manifest.models):
        files = [(f"models[{index}].onnx.{name}", entry) for name, entry in model.onnx.items() if read_dataset(entry)]
        try:
            verify_files(files, folder, attached)
        except ManifestError as error:
            lost[model.name] = f"model {model.name}: {error}"
    for group, weights in manifest.ensemble.weights.items():
        gone = [name for name, weight in weights.items() if weight > 0 and name in lost]
        if len(gone) == sum(weight > 0 for weight in weights.values()):
            raise ManifestError(f"{lost[gone[0]]}; no other model covers the group {group}")
    return lost


def read_declared(folder: Path) -> tuple[Manifest, Labels]:
    """Read the manifest in `folder` and its labels, without the hashes of the files.

    Raises ManifestError naming the key; LabelsError naming the label.
    """
    manifest = read_manifest(folder / MANIFEST_NAME)
    labels = read_labels(folder / manifest.labels.file, manifest.labels.groups)
    check_labels(manifest, labels)
    return manifest, labels


def check_labels(manifest: Manifest, labels: Labels) -> None:
    """Check that the task and the decision suit the labels. Raises ManifestError naming the key."""
    task, decision = manifest.task, manifest.decision
    for group, ids in decision.prior.items():
        unknown = set(ids) - {labels.ids[column] for column in labels.groups[group]}
        if unknown:
            raise ManifestError(
                f"{MANIFEST_NAME}: `decision.prior.{group}`: found {min(unknown)}; wanted label ids of this group in "
                f"{manifest.labels.file}"
            )
    number, file = len(labels.ids), manifest.labels.file
    check_label_ids(manifest, labels)
    if task.type in ("binary", "regression") and number != 1:
        raise ManifestError(f"{MANIFEST_NAME}: `task.type`: found {task.type}, but {number} labels in {file}; wanted 1")
    for key, found, wanted in (
        ("fitted.label_thresholds", len(decision.fitted.label_thresholds), (0, number)),
        ("fitted.label_weights", len(decision.fitted.label_weights), (0, number)),
        ("fitted.cuts", len(decision.fitted.cuts), (number - 1,) if decision.rule == "cut_points" else (0, number - 1)),
        ("prior_scores", len(decision.prior_scores), (0, number) if task.selects_labels else (number,)),
    ):
        if found not in wanted:
            raise ManifestError(
                f"{MANIFEST_NAME}: `decision.{key}`: found {found} numbers; wanted {wanted[-1]} for the {number} "
                f"labels in {file}"
            )
    form = task.submission
    if form.content == "label_name" and form.top_k != 1:
        parted = next((name for name in labels.names if form.separator in name), None)
        if parted is not None:
            raise ManifestError(
                f"{MANIFEST_NAME}: `task.submission.separator`: found {form.separator!r}, which stands in the label "
                f"{parted!r} of {file}; wanted one that no label holds"
            )


def check_label_ids(manifest: Manifest, labels: Labels) -> None:
    """Check the label ids in `labels.exchanged` and `models[].label_order`. Raises ManifestError naming the key."""
    owners = dict(zip(labels.ids, labels.owners, strict=True))
    for mirror, pairs in manifest.labels.exchanged.items():
        key, seen = f"`labels.exchanged.{mirror}`", [label for pair in pairs for label in pair]
        for one, two in pairs:
            if one not in owners or two not in owners or owners[one] != owners[two]:
                raise ManifestError(
                    f"{MANIFEST_NAME}: {key}: found [{one}, {two}]; wanted two label ids of one group in "
                    f"{manifest.labels.file}"
                )
        if len(set(seen)) < len(seen):
            twice = next(label for label in seen if seen.count(label) > 1)
            raise ManifestError(f"{MANIFEST_NAME}: {key}: found label {twice} in two pairs; wanted each label once")
    for index, model in enumerate(manifest.models):
        own = {labels.ids[column] for column in labels.columns(model.group)}
        if model.label_order and (set(model.label_order) != own or len(model.label_order) != len(own)):
            raise ManifestError(
                f"{MANIFEST_NAME}: `models[{index}].label_order`: found {len(model.label_order)} ids; wanted "
                f"each of the {len(own)} label ids of {model.group!r} in {manifest.labels.file} once"
            )
