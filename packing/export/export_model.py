"""Export of one model: its fp32 file compared with the original, its faster files compared with fp32."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from inference.basics.errors import ExportError, OutputError
from inference.basics.files import hash_file, replace_file
from inference.manifest.file import verify_files
from inference.manifest.labels import Labels
from inference.manifest.model import Model, OnnxEntry
from inference.manifest.values import Precision
from inference.models.sessions import ModelSession
from inference.models.views import merge_views
from packing.export.graphs.form import Form
from packing.export.graphs.fp16 import halve_graph
from packing.export.graphs.int8 import KEPT, quantize_graph
from packing.export.originals import Original, open_original, predict_view
from packing.export.parity import Judge
from zoo.onnx_export import describe_fault
from zoo.onnx_limits import PARITY_LIMIT

REDUCED: tuple[Precision, ...] = ("fp16", "int8")
FEWEST = 2  # images on which all views together are compared
Earlier = Mapping[tuple[str, str], OnnxEntry]
"""(source, file name) -> entry of an earlier export."""
Entries = dict[Precision, OnnxEntry]


def export_model(
    model: Model,
    source: str,
    home: Path,
    labels: Labels,
    judge: Judge,
    precisions: Collection[Precision],
    out: Path,
    earlier: Earlier,
) -> Entries:
    """Write OUT/NAME.onnx and the files of `precisions`; return their entries. Files that are up to date are kept.

    `source`: hash of all inputs of the fp32 graph. A precision in which the model fails is skipped with a note.
    Raises ManifestError, CheckpointError or ExportError.
    """
    entry = _find_earlier(earlier, source, out / f"{model.name}.onnx")
    if entry is None:
        entry = write_fp32(model.name, open_original(model, home, labels, judge.form), source, out, judge)
    entries: Entries = {"fp32": entry}
    for precision in REDUCED:
        if precision not in precisions:
            continue
        source, path = judge.hash_source(precision, entry.sha256), out / f"{model.name}.{precision}.onnx"
        try:
            entries[precision] = _find_earlier(earlier, source, path) or reduce_model(
                precision, entry, out / entry.file, path, source, judge
            )
        except OutputError:
            raise
        except Exception as error:  # the converters raise dozens of types
            tqdm.write(f"note: {model.name}: {precision} skipped: {describe_fault(error)}", file=sys.stderr)
    return entries


def write_fp32(name: str, original: Original, source: str, out: Path, judge: Judge) -> OnnxEntry:
    """Write OUT/NAME.onnx and compare it with `original` on the first 16 images of `judge`; see `OnnxEntry`.

    Compared are one view, and on fewer images every view and their merge. Raises ExportError, and leaves no file: the
    scores differ by more than 1e-4, or, of features without bounds, by more than this share of the largest.
    """
    path, form = out / f"{name}.onnx", judge.form
    graph = original.build()
    with replace_file(path) as temporary:
        onnx.save(graph, temporary)
        session, batch = judge.open(temporary), judge.batches[0]
        wanted = predict_view(original, form, batch, form.measured)
        parity = judge.measure(session.predict(batch, (form.measured,)), wanted)
        if len(form.cuts) > 1:
            few = batch[: max(len(batch) // len(form.cuts), FEWEST)]
            parity = dataclasses.replace(parity, parity=max(parity.parity, compare_views(session, original, form, few)))
        limit = PARITY_LIMIT * (1.0 if judge.bounded else max(1.0, float(np.abs(wanted).max())))
        if not parity.parity <= limit:
            raise ExportError(
                f"model {name}: its ONNX differs from the original by {parity.parity:.1e} on {len(batch)} images; "
                f"wanted at most {limit:.0e}"
            )
    opset = max(used.version for used in graph.opset_import if used.domain in ("", "ai.onnx"))
    return OnnxEntry(path.name, hash_file(path), opset, source=source, **dataclasses.asdict(parity))


def compare_views(session: ModelSession, original: Original, form: Form, batch: NDArray[np.uint8]) -> float:
    """Return the largest difference in score: of a view from the original, or of all views from their merge.

    The merge is compared with that of the session's own views: where they disagree, a geometric mean makes much of the
    last bits of the smallest probabilities, and ONNX Runtime's sigmoid differs from torch's there by 1e-7.
    """
    views = [session.predict(batch, (cut,)) for cut in form.cuts]
    merged = merge_views([(1, scores) for scores in views], form.merge)
    found = [float(np.abs(session.predict(batch, form.cuts) - merged).max())]
    for cut, scores in zip(form.cuts, views, strict=True):
        found.append(float(np.abs(scores - predict_view(original, form, batch, cut)).max()))
    return float(np.max(found))


def reduce_model(
    precision: Precision, entry: OnnxEntry, whole: Path, path: Path, source: str, judge: Judge
) -> OnnxEntry:
    """Convert the fp32 file `whole` of `entry` to fp16 or int8, write it to `path` and compare both; see `OnnxEntry`.

    int8 keeps more layers in fp32 if it would lose more than the manifest allows. Raises SessionError, and leaves no
    file: the model does not load, or its output is no score of the task.
    """
    with replace_file(path) as temporary:
        if precision == "fp16":
            onnx.save(halve_graph(onnx.load(whole)), temporary)
            parity = judge.compare(temporary, whole)
        else:
            view = judge.form.cuts.index(judge.form.measured)
            for kept in KEPT:
                quantize_graph(whole, temporary, judge.calibration, kept, view)
                parity = judge.compare(temporary, whole)
                if parity.metric_loss <= judge.limit:
                    break
    return OnnxEntry(path.name, hash_file(path), entry.opset, source=source, **dataclasses.asdict(parity))


def copy_ready(model: Model, key: str, home: Path, out: Path, judge: Judge) -> Entries:
    """Link or copy the files of a model that has no checkpoint, only graphs from a bundle; return their entries.

    `key`: the model's key in the manifest, as models[0]. Raises ManifestError: a file is missing or another one;
    ExportError: there are none; SessionError: fp32 does not run, or makes other views than the manifest wants.
    """
    if "fp32" not in model.onnx:
        raise ExportError(f"`{key}.checkpoint`: missing; wanted the checkpoint of {model.name}, or its ONNX files")
    verify_files([(f"{key}.onnx.{precision}", entry) for precision, entry in model.onnx.items()], home)
    judge.open(home / model.onnx["fp32"].file).predict(judge.batches[0][:FEWEST], judge.form.cuts)
    for entry in model.onnx.values():
        given, path = home / entry.file, out / entry.file
        if path.exists() and path.samefile(given):
            continue
        with replace_file(path) as temporary:
            temporary.unlink()
            try:
                os.link(given, temporary)
            except OSError:  # another file system
                shutil.copyfile(given, temporary)
    return dict(model.onnx)


def _find_earlier(earlier: Earlier, source: str, path: Path) -> OnnxEntry | None:
    entry = earlier.get((source, path.name))
    return entry if entry and path.is_file() and hash_file(path) == entry.sha256 else None
