"""The ONNX files of a bundle's models: from the export, or in an attached dataset."""

import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from inference.basics.errors import InputError, PackError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, read_manifest, refuse_outside, verify_files
from inference.manifest.labels import read_labels
from inference.manifest.model import Model, OnnxEntry
from inference.manifest.records import Manifest
from packing.export.sources import hash_source
from packing.pack.metadata import Names


def attach_exports(manifest: Manifest, home: Path, onnx: Path) -> tuple[Model, ...]:
    """Return the models for the bundle's manifest: with ONNX files, without checkpoints and out-of-fold files.

    Raises PackError: a model was not exported, or was changed after its export.
    """
    if not (onnx / MANIFEST_NAME).is_file():
        raise PackError(f"{onnx}: found no export; run `build_kernel.py export --out {onnx}` first")
    exports = {model.name: model.onnx for model in read_manifest(onnx / MANIFEST_NAME).models}
    labels = read_labels(home / manifest.labels.file, manifest.labels.groups)
    models = []
    for index, model in enumerate(manifest.models):
        entries = exports.get(model.name, {})
        if "fp32" not in entries or entries["fp32"].source != hash_source(manifest, model, labels):
            raise PackError(
                f"{onnx}: the export of {model.name} is missing or out of date; run `build_kernel.py export`"
            )
        verify_files([(f"models[{index}].onnx.{name}", entry) for name, entry in entries.items()], onnx)
        models.append(dataclasses.replace(model, onnx=entries, checkpoint=None, out_of_fold=None))
    return tuple(models)


def copy_models(models: Iterable[Model], onnx: Path, dataset: Path) -> None:
    """Copy the ONNX files that no attached dataset has from the export `onnx` into the bundle's folder `dataset`."""
    for model in models:
        for entry in model.onnx.values():
            if entry.dataset is None:
                shutil.copyfile(onnx / entry.file, dataset / entry.file)


def attach_datasets(models: tuple[Model, ...], attach: Mapping[str, Path], names: Names) -> tuple[Model, ...]:
    """Mark the ONNX files that attached datasets have, found by their sha256.

    `attach`: OWNER/SLUG -> local copy of the dataset. Raises PackError: it has none of the files, or it is the bundle's
    own dataset.
    """
    for dataset, folder in attach.items():
        if dataset == names.dataset_id:
            raise PackError(f"--attach: {dataset} is the bundle's own dataset; give the bundle another --slug")
        files = hash_folder(folder)
        marked = tuple(
            dataclasses.replace(model, onnx={name: _mark(one, dataset, files) for name, one in model.onnx.items()})
            for model in models
        )
        if not any(entry.dataset == dataset for model in marked for entry in model.onnx.values()):
            raise PackError(
                f"--attach: {folder}: found none of the models' files by sha256; wanted a copy of the dataset {dataset}"
            )
        models = marked
    return models


def hash_folder(folder: Path) -> dict[str, str]:
    """Return sha256 -> name of the ONNX files in a folder. Raises PackError: one is unreadable, or no such folder."""
    if not folder.is_dir():
        raise PackError(f"--attach: {folder}: no such folder; wanted a local copy of the dataset")
    found = {}
    for path in sorted(folder.glob("*.onnx")):
        try:
            refuse_outside(path, folder)
            found[hash_file(path)] = path.name
        except InputError as error:
            raise PackError(f"--attach: {error}") from error
    return found


def _mark(entry: OnnxEntry, dataset: str, files: Mapping[str, str]) -> OnnxEntry:
    if entry.dataset is not None or entry.sha256 not in files:
        return entry
    return dataclasses.replace(entry, file=files[entry.sha256], dataset=dataset)
