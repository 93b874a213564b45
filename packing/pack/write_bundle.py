"""The bundle: a folder without subfolders for a Kaggle dataset, and the notebook that runs it."""

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import inference
from inference.basics.errors import OutputError, PackError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, read_manifest, verify_files, write_manifest
from inference.manifest.labels import read_labels
from inference.manifest.records import FileEntry, Manifest, Model, Stacker
from inference.manifest.references import check_coverage
from packing.accelerators import DEFAULT, Accelerator
from packing.export.sources import hash_source
from packing.pack.metadata import (
    DATASET_METADATA,
    KERNEL_METADATA,
    NOTEBOOK,
    Names,
    make_dataset_metadata,
    make_kernel_metadata,
)
from packing.pack.render_notebook import render_notebook

SCRIPT = "inference.pyz"
LABELS = "labels.csv"
ENTRY_POINT = """import sys

from inference.__main__ import main

sys.exit(main())
"""
# The earliest date of a zip file; a fixed date makes two packs byte-identical.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Packed:
    """A written bundle: its two folders."""

    dataset: Path
    kernel: Path
    size: int
    """Of the dataset, bytes."""


def pack(
    manifest_path: Path,
    onnx: Path,
    out: Path,
    names: Names,
    accelerator: Accelerator = DEFAULT,
    wheels: Sequence[Path] = (),
) -> Packed:
    """Write OUT/dataset and OUT/kernel; replace OUT if it holds only an earlier pack.

    `onnx`: the folder of `export`; `wheels`: files that the kernel installs. The same inputs give the same bytes.
    Raises ManifestError, PackError or OutputError, and leaves OUT unchanged.
    """
    dataset_metadata, kernel_metadata = make_dataset_metadata(names), make_kernel_metadata(names, accelerator)
    manifest = read_manifest(manifest_path)
    check_coverage(manifest)
    home = manifest_path.parent
    verify_files([("labels", manifest.labels)], home)
    models = attach_exports(manifest, home, onnx)
    _refuse_other_files(out)
    building = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    dataset, kernel = building / "dataset", building / "kernel"
    try:
        for folder in (dataset, kernel):
            folder.mkdir(parents=True)
        shutil.copyfile(home / manifest.labels.file, dataset / LABELS)
        for model in models:
            for entry in model.onnx.values():
                shutil.copyfile(onnx / entry.file, dataset / entry.file)
        stackers = copy_stackers(manifest, home, dataset)
        write_script(dataset / SCRIPT)
        for wheel in wheels:
            shutil.copyfile(wheel, dataset / wheel.name)
        script, *included = (
            FileEntry(name, hash_file(dataset / name)) for name in (SCRIPT, *(wheel.name for wheel in wheels))
        )
        bundled = dataclasses.replace(
            manifest,
            labels=dataclasses.replace(manifest.labels, file=LABELS),
            models=models,
            ensemble=dataclasses.replace(manifest.ensemble, stackers=stackers),
            runtime=dataclasses.replace(manifest.runtime, script=script, wheels=tuple(included)),
        )
        write_manifest(bundled, dataset / MANIFEST_NAME)
        _write_json(dataset / DATASET_METADATA, dataset_metadata)
        _write_json(kernel / KERNEL_METADATA, kernel_metadata)
        written = (dataset / MANIFEST_NAME, dataset / DATASET_METADATA, kernel / KERNEL_METADATA)
        hashes = {path.name: hash_file(path) for path in written}
        (kernel / NOTEBOOK).write_text(render_notebook(names, hashes, manifest.task, accelerator), encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        building.replace(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    size = sum(path.stat().st_size for path in (out / "dataset").iterdir())
    return Packed(out / "dataset", out / "kernel", size)


def attach_exports(manifest: Manifest, home: Path, onnx: Path) -> tuple[Model, ...]:
    """Return the models for the bundle's manifest: with ONNX files, without checkpoints and out-of-fold files.

    Raises PackError: a model was not exported, or was changed after its export.
    """
    if not (onnx / MANIFEST_NAME).is_file():
        raise PackError(f"{onnx}: found no export; run `build_kernel.py export --out {onnx}` first")
    exports = {model.name: model.onnx for model in read_manifest(onnx / MANIFEST_NAME).models}
    labels = read_labels(home / manifest.labels.file, manifest.labels.groups)
    attached = []
    for index, model in enumerate(manifest.models):
        entries = exports.get(model.name, {})
        source = hash_source(model, len(labels.columns(model.group)), manifest.task.activation)
        if "fp32" not in entries or entries["fp32"].source != source:
            raise PackError(
                f"{onnx}: the export of {model.name} is missing or out of date; run `build_kernel.py export`"
            )
        verify_files([(f"models[{index}].onnx.{name}", entry) for name, entry in entries.items()], onnx)
        attached.append(dataclasses.replace(model, onnx=entries, checkpoint=None, out_of_fold=None))
    return tuple(attached)


def copy_stackers(manifest: Manifest, home: Path, dataset: Path) -> tuple[Stacker, ...]:
    """Copy the stackers into the dataset folder; return them as the bundle's manifest declares them.

    Raises ManifestError: a file is not the declared one.
    """
    entries = [
        (f"ensemble.stackers[{index}].onnx", stacker.onnx) for index, stacker in enumerate(manifest.ensemble.stackers)
    ]
    verify_files(entries, home)
    copied = []
    for stacker in manifest.ensemble.stackers:
        name = f"stacker_{stacker.name}.onnx"
        shutil.copyfile(home / stacker.onnx.file, dataset / name)
        copied.append(dataclasses.replace(stacker, onnx=FileEntry(name, stacker.onnx.sha256)))
    return tuple(copied)


def write_script(path: Path) -> None:
    """Write the package `inference` as an executable zip file; the bytes depend on nothing but its sources."""
    package = Path(inference.__file__).parent
    members = {"__main__.py": ENTRY_POINT.encode()}
    files = sorted(package.rglob("*.py"))
    members |= {file.relative_to(package.parent).as_posix(): file.read_bytes() for file in files}
    with path.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), content)


def _refuse_other_files(out: Path) -> None:
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= {"dataset", "kernel"}):
        raise OutputError(f"{out}: found files that `pack` did not write; choose a new folder with --out")


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
