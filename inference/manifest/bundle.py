"""Reading a bundle: its manifest, labels and files."""

from pathlib import Path

from inference.basics.errors import InputError, ManifestError
from inference.manifest.file import MANIFEST_NAME, list_bundle_files, read_manifest, refuse_outside, verify_files
from inference.manifest.labels import Labels, read_labels
from inference.manifest.records import Manifest
from inference.manifest.references import check_coverage


def read_bundle(folder: Path) -> tuple[Manifest, Labels]:
    """Read the manifest and the labels of a bundle, and verify the hashes of all its files.

    Raises ManifestError naming the key; LabelsError naming the label.
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
    verify_files(list_bundle_files(manifest), folder)
    return read_declared(folder)


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
