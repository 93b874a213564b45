"""The bundle: a folder without subfolders for a Kaggle dataset, and the notebook that runs it."""

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import inference
from inference.basics.errors import OutputError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, NO_DATASETS, read_manifest, verify_files, write_manifest
from inference.manifest.model import FileEntry
from inference.manifest.records import Manifest, Stacker
from inference.manifest.references import check_coverage
from packing.accelerators import DEFAULT, Accelerator
from packing.pack.choose_stage import choose_stage
from packing.pack.metadata import (
    DATASET_METADATA,
    KERNEL_METADATA,
    NOTEBOOK,
    Names,
    make_dataset_metadata,
    make_kernel_metadata,
)
from packing.pack.model_files import attach_datasets, attach_exports, copy_models
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
    *,
    without_stackers: bool = False,
    attach: Mapping[str, Path] = NO_DATASETS,
) -> Packed:
    """Write OUT/dataset and OUT/kernel; replace OUT if it holds only an earlier pack.

    `onnx`: the folder of `export`; `wheels`: files that the kernel installs; `without_stackers`: pack the blend alone;
    `attach`: OWNER/SLUG -> local copy of a dataset whose model files are not copied. The same inputs give the same
    bytes. Raises ManifestError, PackError or OutputError, and leaves OUT unchanged.
    """
    dataset_metadata = make_dataset_metadata(names)
    kernel_metadata = make_kernel_metadata(names, accelerator, list(attach))
    manifest = choose_stage(read_manifest(manifest_path), without_stackers=without_stackers)
    check_coverage(manifest)
    home = manifest_path.parent
    verify_files([("labels", manifest.labels)], home)
    models = attach_datasets(attach_exports(manifest, home, onnx), attach, names)
    _refuse_other_files(out)
    building = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    dataset, kernel = building / "dataset", building / "kernel"
    try:
        for folder in (dataset, kernel):
            folder.mkdir(parents=True)
        shutil.copyfile(home / manifest.labels.file, dataset / LABELS)
        copy_models(models, onnx, dataset)
        stackers = copy_stackers(manifest, home, dataset)
        script, *included = write_runtime(dataset, wheels)
        bundled = dataclasses.replace(
            manifest,
            labels=dataclasses.replace(manifest.labels, file=LABELS),
            models=models,
            ensemble=dataclasses.replace(manifest.ensemble, stackers=stackers),
            runtime=dataclasses.replace(manifest.runtime, script=script, wheels=tuple(included)),
        )
        write_manifest(bundled, dataset / MANIFEST_NAME)
        written = (dataset / MANIFEST_NAME, dataset / DATASET_METADATA, kernel / KERNEL_METADATA)
        for path, document in zip(written[1:], (dataset_metadata, kernel_metadata), strict=True):
            _write_json(path, document)
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


def write_runtime(dataset: Path, wheels: Sequence[Path]) -> list[FileEntry]:
    """Write the script and copy the wheels into the dataset folder; return their entries, the script's first."""
    write_script(dataset / SCRIPT)
    for wheel in wheels:
        shutil.copyfile(wheel, dataset / wheel.name)
    return [FileEntry(name, hash_file(dataset / name)) for name in (SCRIPT, *(wheel.name for wheel in wheels))]


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
