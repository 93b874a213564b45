"""weights_manifest.json: the one declaration of a zoo, the same at home and in the bundle."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from inference.basics.errors import ManifestError
from inference.basics.files import hash_file, replace_file
from inference.manifest.records import (
    AnyFile,
    Manifest,
)
from inference.manifest.references import check_references
from inference.manifest.schema import load_json, parse_record

MANIFEST_NAME = "weights_manifest.json"


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`, fully checked but for the files that it names (see verify_files).

    Raises ManifestError naming the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: no such file; name the manifest, or start one with `build_kernel.py add`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read: {error}") from error
    try:
        return parse_manifest(load_json(text))
    except ManifestError as error:
        raise ManifestError(f"{path.name}: {error}") from error


def parse_manifest(document: object) -> Manifest:
    """A Manifest from parsed JSON; raises ManifestError naming the key."""
    manifest: Manifest = parse_record(Manifest, document)
    check_references(manifest)
    return manifest


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write the manifest, whole or not at all; read_manifest gives it back.

    Raises ManifestError naming the key where read_manifest would refuse it.
    """
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    parse_manifest(load_json(text))
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def list_bundle_files(manifest: Manifest) -> list[tuple[str, AnyFile]]:
    """(key, entry) of each file that the kernel needs."""
    files: list[tuple[str, AnyFile]] = [("labels", manifest.labels)]
    for index, model in enumerate(manifest.models):
        files += [(f"models[{index}].onnx.{precision}", entry) for precision, entry in model.onnx.items()]
    files += [
        (f"ensemble.stackers[{index}].onnx", stacker.onnx) for index, stacker in enumerate(manifest.ensemble.stackers)
    ]
    if manifest.runtime.script:
        files.append(("runtime.script", manifest.runtime.script))
    return files + [(f"runtime.wheels[{index}]", wheel) for index, wheel in enumerate(manifest.runtime.wheels)]


def verify_files(files: Iterable[tuple[str, AnyFile]], folder: Path) -> None:
    """Each file is in `folder`, links included, and has its hash; raises ManifestError naming the key and the file."""
    for key, entry in files:
        path = folder / entry.file
        if not path.is_file():
            raise ManifestError(f"{MANIFEST_NAME}: `{key}.file`: no file {entry.file} in {folder}")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ManifestError(
                f"{MANIFEST_NAME}: `{key}.file`: {path} is a link that leads out of {folder}; put the file itself there"
            )
        found = hash_file(path)
        if found != entry.sha256:
            raise ManifestError(
                f"{MANIFEST_NAME}: `{key}.sha256`: {path} has {found[:12]}…; wanted {entry.sha256[:12]}…; "
                "the file is not the one declared: bring that one back or declare this one"
            )
