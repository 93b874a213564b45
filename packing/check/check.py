"""The checks of a bundle before upload: Kaggle's rules and what the kernel requires."""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.basics.errors import InputError, PackError
from inference.basics.files import read_text
from inference.ensemble.stackers import open_stage
from inference.manifest.bundle import read_bundle
from inference.manifest.file import (
    MANIFEST_NAME,
    NO_DATASETS,
    find_file,
    list_bundle_files,
    list_datasets,
    read_dataset,
)
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.models.graphs import check_graph
from packing.pack.metadata import (
    DATASET_METADATA,
    KERNEL_METADATA,
    NOTEBOOK,
    check_dataset_metadata,
    check_kernel_metadata,
)
from packing.pack.render_notebook import check_hashes, check_notebook

FILE_NAME = re.compile(r"[A-Za-z0-9._-]+")
ARCHIVE = re.compile(r".*\.(zip|7z|rar|tgz|tar(\.\w+)?|gz|bz2|xz)", re.IGNORECASE)
# Names that Kaggle's client reserves for itself and skips in an upload.
RESERVED = re.compile(r"datapackage\.json|(kernel|model|model-instance)-metadata\.json|dataset-cover-image\.\w+")
WHEEL = re.compile(r"[A-Za-z0-9_.]+-[A-Za-z0-9_.!+]+(-\d\w*)?-\w[\w.]*-\w[\w.]*-\w[\w.]*\.whl", re.ASCII)


def check_bundle(folder: Path, attached: Mapping[str, Path] = NO_DATASETS) -> tuple[Manifest, Labels]:
    """Check the dataset of a bundle, and its kernel if there is one; return the manifest and the labels.

    `folder`: the bundle or its dataset folder; `attached`: OWNER/SLUG -> local copy of an attached dataset.

    Raises PackError, ManifestError or SessionError for the first fault in schema, hashes, subfolders, names, graphs,
    stackers, metadata, notebook, or a file that the manifest does not declare.
    """
    dataset = folder / "dataset" if (folder / "dataset").is_dir() else folder
    if not dataset.is_dir():
        raise PackError(f"{folder}: no such bundle; make one with `build_kernel.py pack`")
    manifest, labels = check_dataset(dataset, attached)
    kernel = dataset.parent / "kernel"
    if kernel.is_dir():
        check_kernel(kernel, dataset, list_datasets(manifest))
    elif dataset != folder:
        raise PackError(f"{folder}: no kernel folder beside dataset; pack the bundle again")
    return manifest, labels


def check_dataset(dataset: Path, attached: Mapping[str, Path] = NO_DATASETS) -> tuple[Manifest, Labels]:
    """Check the dataset folder of a bundle; see `check_bundle`."""
    for path in sorted(dataset.iterdir()):
        if path.is_dir():
            raise PackError(f"{path}: found a folder; wanted files only: Kaggle's client skips folders")
        if not FILE_NAME.fullmatch(path.name):
            raise PackError(f"{path}: found a name that Kaggle changes; wanted only letters, digits, '.', '_' and '-'")
        if ARCHIVE.fullmatch(path.name):
            raise PackError(
                f"{path}: found an archive; wanted none: Kaggle unpacks archives, so the kernel would not find it"
            )
        if RESERVED.fullmatch(path.name):
            raise PackError(
                f"{path}: found a name that Kaggle's client reserves; the file would not be uploaded; rename it"
            )
    manifest, labels = read_bundle(dataset, attached)
    check_dataset_metadata(_read_json(dataset / DATASET_METADATA))
    own = {entry.file for _, entry in list_bundle_files(manifest) if not read_dataset(entry)}
    declared = own | {MANIFEST_NAME, DATASET_METADATA}
    for path in sorted(dataset.iterdir()):
        if path.name not in declared:
            raise PackError(
                f"{path}: found a file that the manifest does not declare; remove it or pack the bundle again"
            )
    if manifest.runtime.script is None:
        raise PackError(f"{dataset / MANIFEST_NAME}: `runtime.script`: missing; pack the bundle again")
    for index, wheel in enumerate(manifest.runtime.wheels):
        if not WHEEL.fullmatch(wheel.file):
            raise PackError(
                f"{MANIFEST_NAME}: `runtime.wheels[{index}].file`: found {wheel.file!r}; wanted the name of a wheel"
            )
        if not zipfile.is_zipfile(dataset / wheel.file):
            raise PackError(f"{dataset / wheel.file}: found an incomplete wheel; pack the bundle again with --wheels")
    for model in manifest.models:
        for entry in model.onnx.values():
            check_graph(find_file(entry, dataset, attached))
    for stacker in manifest.ensemble.stackers:
        check_graph(dataset / stacker.onnx.file)
    open_stage(manifest, labels, dataset)
    return manifest, labels


def check_kernel(kernel: Path, dataset: Path, attached: Sequence[str] = ()) -> None:
    """Check the kernel folder: the metadata, the notebook, and that both belong to this dataset.

    `attached`: OWNER/SLUG of further datasets, which must be the kernel's sources too.
    """
    metadata = _read_json(kernel / KERNEL_METADATA)
    check_kernel_metadata(metadata)
    wanted = _read_json(dataset / DATASET_METADATA)["id"]
    for source in (wanted, *attached):
        if source not in metadata["dataset_sources"]:
            raise PackError(
                f"{kernel / KERNEL_METADATA}: `dataset_sources`: found {metadata['dataset_sources']}; wanted {source} "
                "in it"
            )
    owner, slug, competition = check_notebook(kernel / NOTEBOOK)
    if f"{owner}/{slug}" != wanted:
        raise PackError(f"{kernel / NOTEBOOK}: found dataset {owner}/{slug}; wanted {wanted}; pack the bundle again")
    if competition not in metadata["competition_sources"]:
        raise PackError(
            f"{kernel / KERNEL_METADATA}: `competition_sources`: found {metadata['competition_sources']}; "
            f"wanted {competition} in it, as in the notebook"
        )
    # Last, because the messages of the other checks are more specific.
    check_hashes(kernel / NOTEBOOK, (dataset / MANIFEST_NAME, dataset / DATASET_METADATA, kernel / KERNEL_METADATA))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(path))
    except InputError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        raise PackError(f"{path}: missing; pack the bundle again" if missing else str(error)) from error
    except (ValueError, RecursionError) as error:
        raise PackError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise PackError(f"{path}: found {type(document).__name__}; wanted an object")
    return document
