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
    labels = read_labels(folder / manifest.labels.file, manifest.labels.groups)
    for group, ids in manifest.decision.prior.items():
        unknown = set(ids) - {labels.ids[column] for column in labels.groups[group]}
        if unknown:
            raise ManifestError(
                f"{MANIFEST_NAME}: `decision.prior.{group}`: found {min(unknown)}; wanted label ids of this group in "
                f"{manifest.labels.file}"
            )
    return manifest, labels
