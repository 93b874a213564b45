"""Export of a zoo: every model to ONNX graphs from image bytes to scores, and a manifest that declares the files."""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path

from tqdm import tqdm

from inference.basics.errors import ExportError, ManifestError
from inference.basics.files import make_folder
from inference.manifest.file import MANIFEST_NAME, read_manifest, verify_files, write_manifest
from inference.manifest.model import Model
from inference.manifest.records import Manifest
from inference.manifest.values import Precision
from packing.export.example_images import SMALLEST, Examples, read_examples
from packing.export.export_model import Earlier, Entries, copy_ready, export_model
from packing.export.losses import describe_entry
from packing.export.parity import Judge
from packing.export.sources import hash_source
from zoo.onnx_export import describe_fault
from zoo.tables.out_of_fold import Zoo, open_zoo

EXAMPLES = 768  # the most images used
Report = Callable[[str], None]


def export_zoo(
    manifest_path: Path,
    out: Path,
    images: Path,
    precisions: Collection[Precision] = (),
    truth: Path | None = None,
    report: Report | None = None,
) -> Manifest:
    """Export every model of the manifest to OUT/NAME.onnx, and write a manifest that declares the files to OUT.

    Files that are up to date are kept. `precisions`: fp32 is always made, fp16 becomes OUT/NAME.fp16.onnx, int8
    NAME.int8.onnx; a precision in which the model fails is skipped with a note. `images`: a folder of real images, of
    which at most 768 are used; `truth`: a train.csv with their truth. `report` gets a line per file.

    A model that fails does not stop the others: the manifest, written again after each model, declares their files.
    Raises ExportError with a line per failed model; before any export, ManifestError, ImagesError or TableError.
    """
    zoo = open_zoo(manifest_path)
    manifest, models = zoo.manifest, list(zoo.manifest.models)
    make_folder(out)
    most = EXAMPLES if {*precisions} - {"fp32"} else SMALLEST
    examples = read_examples(images, most, "int8" in precisions, models, zoo.labels, manifest.task, truth)
    former = _read_former(out)
    earlier = {(entry.source, entry.file): entry for model in former for entry in model.onnx.values()}
    # Until its turn, a model keeps its entries, so that a run that is killed loses none.
    known = {model.name: model.onnx for model in former}
    models = [dataclasses.replace(model, onnx=model.onnx or known.get(model.name, {})) for model in models]
    failed: dict[str, str] = {}
    with tqdm(total=len(models), unit="model", leave=False) as bar:
        for index, model in enumerate(manifest.models):
            bar.set_description(f"export {model.name}")
            entries: Entries = {}
            try:
                entries = _export(zoo, index, examples, precisions, out, earlier)
            except Exception as error:  # libraries raise dozens of types; the other models are exported all the same
                failed[model.name] = describe_fault(error).removeprefix(f"model {model.name}: ")
            models[index] = dataclasses.replace(model, onnx=entries)
            write_manifest(dataclasses.replace(manifest, models=tuple(models)), out / MANIFEST_NAME)
            for precision, entry in entries.items():
                text = describe_entry(precision, entry, manifest.runtime.metric_loss, manifest.task)
                size = (out / entry.file).stat().st_size / 1e6
                if report:
                    report(f"{out / entry.file}  {size:.1f} MB  {text}")
            bar.update()
    if failed:
        lines = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
        raise ExportError(f"{manifest_path}: {len(failed)} of {len(models)} models failed to export:{lines}")
    return dataclasses.replace(manifest, models=tuple(models))


def _export(
    zoo: Zoo, index: int, examples: Examples, precisions: Collection[Precision], out: Path, earlier: Earlier
) -> Entries:
    model, key = zoo.manifest.models[index], f"models[{index}]"
    judge = Judge(zoo.manifest, model, zoo.labels, examples)
    if model.checkpoint is None:
        return copy_ready(model, key, zoo.home, out, judge)
    verify_files([(f"{key}.checkpoint", model.checkpoint)], zoo.home)
    source = hash_source(zoo.manifest, model, zoo.labels)
    return export_model(model, source, zoo.home, zoo.labels, judge, precisions, out, earlier)


def _read_former(out: Path) -> tuple[Model, ...]:
    """Return the models of an earlier export in OUT; none if that is of another version of this program."""
    try:
        return read_manifest(out / MANIFEST_NAME).models if (out / MANIFEST_NAME).exists() else ()
    except ManifestError:
        return ()
