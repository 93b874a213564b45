"""Reading and writing weights_manifest.json, and verifying the files that it names."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from inference.basics.errors import InputError, ManifestError
from inference.basics.files import hash_file, read_text, replace_file
from inference.manifest.model import OnnxEntry
from inference.manifest.records import AnyFile, Manifest
from inference.manifest.references import check_references
from inference.manifest.schema import load_json, parse_record

MANIFEST_NAME = "weights_manifest.json"
NO_DATASETS: Mapping[str, Path] = MappingProxyType({})


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest at `path`; verify_files checks the files that it names.

    Raises ManifestError naming the file and the key.
    """
    try:
        text = read_text(path)
    except InputError as error:
        hint = "; name the manifest, or start one with `build_kernel.py init`" if _is_missing(error) else ""
        raise ManifestError(f"{error}{hint}") from error
    try:
        return parse_manifest(load_json(text))
    except ManifestError as error:
        raise ManifestError(f"{path.name}: {error}") from error


def parse_manifest(document: object) -> Manifest:
    """Convert parsed JSON to a Manifest. Raises ManifestError naming the key."""
    manifest: Manifest = parse_record(Manifest, document)
    check_references(manifest)
    return manifest


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write the manifest atomically; read_manifest then returns an equal one.

    Raises ManifestError naming the key that read_manifest would refuse.
    """
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    parse_manifest(load_json(text))
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def list_bundle_files(manifest: Manifest) -> list[tuple[str, AnyFile]]:
    """List (key, entry) of each file that the kernel needs."""
    files: list[tuple[str, AnyFile]] = [("labels", manifest.labels)]
    for index, model in enumerate(manifest.models):
        files += [(f"models[{index}].onnx.{precision}", entry) for precision, entry in model.onnx.items()]
    files += [
        (f"ensemble.stackers[{index}].onnx", stacker.onnx) for index, stacker in enumerate(manifest.ensemble.stackers)
    ]
    if manifest.runtime.script:
        files.append(("runtime.script", manifest.runtime.script))
    return files + [(f"runtime.wheels[{index}]", wheel) for index, wheel in enumerate(manifest.runtime.wheels)]


def read_dataset(entry: AnyFile) -> str | None:
    """Return OWNER/SLUG of the attached dataset that has the file; None if it is in the manifest's own folder."""
    return entry.dataset if isinstance(entry, OnnxEntry) else None


def list_datasets(manifest: Manifest) -> list[str]:
    """List the attached datasets that have files of models, each once, in the manifest's order."""
    return list(dict.fromkeys(filter(None, (read_dataset(entry) for _, entry in list_bundle_files(manifest)))))


def find_file(entry: AnyFile, folder: Path, attached: Mapping[str, Path] = NO_DATASETS) -> Path:
    """Return the path of an entry's file: in the folder of its attached dataset, or in `folder`.

    `attached`: OWNER/SLUG -> folder. Raises ManifestError: the dataset is not attached.
    """
    dataset = read_dataset(entry)
    if dataset is None:
        return folder / entry.file
    if dataset not in attached:
        raise ManifestError(
            f"{MANIFEST_NAME}: dataset {dataset} is not attached, which has {entry.file}; attach it with Add Input in "
            f"the notebook, or name its folder with --attached {dataset}=DIR"
        )
    return attached[dataset] / entry.file


def verify_files(
    files: Iterable[tuple[str, AnyFile]], folder: Path, attached: Mapping[str, Path] = NO_DATASETS
) -> None:
    """Check that each file is in `folder` or in its attached dataset, also after resolving links, and has its hash.

    Raises ManifestError naming the key.
    """
    for key, entry in files:
        path = find_file(entry, folder, attached)
        dataset = read_dataset(entry)
        home = path.parent if dataset else folder
        try:
            refuse_outside(path, home)
            found = hash_file(path)
        except InputError as error:
            reason = f"no file {entry.file} in {home}" if _is_missing(error) else str(error)
            owner = f"; dataset {dataset} has changed" if dataset else ""
            raise ManifestError(f"{MANIFEST_NAME}: `{key}.file`: {reason}{owner}") from error
        if found != entry.sha256:
            remedy = "restore the file, or update the manifest"
            if dataset:
                remedy = f"dataset {dataset} has changed; attach the version that was packed, or pack again"
            raise ManifestError(
                f"{MANIFEST_NAME}: `{key}.sha256`: {path}: found {found[:12]}…; wanted {entry.sha256[:12]}…; {remedy}"
            )


def refuse_outside(path: Path, folder: Path) -> None:
    """Raise InputError if `path` in `folder` is a link, or lies behind a link, to a file outside of the folder."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise InputError(f"{path} links to a file outside of {folder}; copy the file there")


def _is_missing(error: InputError) -> bool:
    return isinstance(error.__cause__, FileNotFoundError)
