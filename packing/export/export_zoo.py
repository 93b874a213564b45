"""Export of checkpoints to ONNX graphs from image bytes to scores, each compared with torch."""

import dataclasses
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from inference.basics.errors import ExportError, SessionError
from inference.basics.files import hash_file, make_folder, replace_file
from inference.manifest.file import MANIFEST_NAME, read_manifest, verify_files, write_manifest
from inference.manifest.records import FileEntry, Manifest, Model, OnnxEntry
from inference.manifest.task import Activation, Task
from inference.manifest.values import Precision
from inference.models.sessions import ModelSession
from packing.export.fp16 import halve_graph
from packing.export.graph import name_logits, pool_globally
from packing.export.int8 import KEPT, quantize_graph
from packing.export.parity import Judge, list_examples
from packing.export.sources import hash_source
from packing.export.trace_views import trace_views
from zoo.activation import activate
from zoo.metrics.scoring import find_scoring
from zoo.networks import load_network
from zoo.onnx_export import trace_module
from zoo.onnx_limits import OPSET, PARITY_LIMIT
from zoo.tables.out_of_fold import open_zoo

EXAMPLES = 768  # the most images used
EXPORT_BATCH = 2
MOST_AT_ONCE = 4096
REDUCED: tuple[Precision, ...] = ("fp16", "int8")


class KernelNetwork(torch.nn.Module):
    """A timm model from uint8 images (batch, height, width, 3) to scores (batch, labels)."""

    def __init__(self, network: torch.nn.Module, model: Model, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        mean, std = torch.tensor(model.mean), torch.tensor(model.std)
        self.network = network
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise, run the network, apply the activation."""
        normalised = image.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return activate(self.network(normalised), self.activation)


def export_zoo(
    manifest_path: Path, out: Path, images: Path, precisions: Collection[Precision] = (), truth: Path | None = None
) -> Manifest:
    """Export every model of the manifest to OUT/NAME.onnx, and write a manifest that declares the files to OUT.

    Files that are up to date are kept. `precisions`: fp32 is always made, fp16 becomes OUT/NAME.fp16.onnx, int8
    NAME.int8.onnx; a precision in which the model fails is skipped with a note. `images`: a folder of real images, of
    which at most 768 are used; `truth`: a train.csv with their truth. Raises ExportError, CheckpointError,
    ManifestError, ImagesError or TableError.
    """
    zoo = open_zoo(manifest_path)
    manifest, home, labels = zoo.manifest, zoo.home, zoo.labels
    task = manifest.task
    verify_files(_list_checkpoints(manifest), home)
    examples = list_examples(images, EXAMPLES, "int8" in precisions, labels, task, truth)
    make_folder(out)
    earlier = _read_earlier(out)
    models: list[Model] = []
    for model in tqdm(manifest.models, desc="export", unit="model", leave=False):
        outputs = len(labels.columns(model.group))
        source = hash_source(model, outputs, task.activation)
        judge = Judge(manifest, model, labels, examples)
        entry = _find_earlier(earlier, source, out / f"{model.name}.onnx")
        if entry is None:
            assert model.checkpoint is not None
            network = load_network(home / model.checkpoint.file, model.architecture, model.image_size, outputs).module
            entry = export_model(network, model, outputs, source, out, judge)
        entries: dict[Precision, OnnxEntry] = {"fp32": entry}
        for precision in REDUCED:
            if precision not in precisions:
                continue
            source, path = judge.hash_source(precision, entry.sha256), out / f"{model.name}.{precision}.onnx"
            try:
                entries[precision] = _find_earlier(earlier, source, path) or reduce_model(
                    precision, out / entry.file, path, source, judge
                )
            except SessionError as error:
                print(f"note: {model.name}: {precision} skipped: {error}", file=sys.stderr)
        models.append(dataclasses.replace(model, onnx=entries))
    exported = dataclasses.replace(manifest, models=tuple(models))
    write_manifest(exported, out / MANIFEST_NAME)
    return exported


def export_model(
    network: torch.nn.Module, model: Model, outputs: int, source: str, out: Path, judge: Judge
) -> OnnxEntry:
    """Write OUT/NAME.onnx and compare it with `network` on the first 16 images of `judge`; see `OnnxEntry`.

    Raises ExportError, and leaves no file: the scores differ by more than 1e-4.
    """
    path, activation = out / f"{model.name}.onnx", judge.task.activation
    graph = build_graph(network, model, outputs, activation)
    with replace_file(path) as temporary:
        onnx.save(graph, temporary)
        batch = judge.batches[0]
        answer = ModelSession(model.name, temporary, outputs, bounded=judge.task.has_probabilities).predict(batch)
        parity = judge.measure(answer, predict_with_torch(network, model, batch, activation))
        if not parity.parity <= PARITY_LIMIT:
            raise ExportError(
                f"model {model.name}: its ONNX differs from torch by {parity.parity:.1e} on {len(batch)} images; "
                f"wanted at most {PARITY_LIMIT:.0e}"
            )
    return OnnxEntry(path.name, hash_file(path), OPSET, source=source, **dataclasses.asdict(parity))


def reduce_model(precision: Precision, whole: Path, path: Path, source: str, judge: Judge) -> OnnxEntry:
    """Convert the fp32 file `whole` to fp16 or int8, write it to `path` and compare both; see `OnnxEntry`.

    int8 keeps more layers in fp32 if it would lose more than the manifest allows. Raises SessionError, and leaves no
    file: the model does not load, or its output is no score of the task.
    """
    with replace_file(path) as temporary:
        if precision == "fp16":
            onnx.save(halve_graph(onnx.load(whole)), temporary)
            parity = judge.compare(temporary, whole)
        else:
            for kept in KEPT:
                quantize_graph(whole, temporary, judge.calibration, kept)
                parity = judge.compare(temporary, whole)
                if parity.metric_loss <= judge.limit:
                    break
    return OnnxEntry(path.name, hash_file(path), OPSET, source=source, **dataclasses.asdict(parity))


def describe_entry(precision: Precision, entry: OnnxEntry, limit: float, task: Task) -> str:
    """Describe the differences of a file from torch or fp32 as text; `limit`: the largest allowed loss."""
    text = f"opset {entry.opset}  parity {entry.parity:.1e}"
    if precision != "fp32":
        scoring = find_scoring(task)
        flipped = f"  labels flipped {entry.flips:.2%}" if task.submission.holds_labels else ""
        change = 0.0 - round(entry.metric_loss, 4)
        figure = f"{change:+.4f}" if scoring.higher_is_better else f"{0.0 - change:+.2%}"
        text += f"{flipped}  {scoring.title} {figure}"
    return text if entry.metric_loss <= limit else f"{text}  not used: loses more than {limit} (`runtime.metric_loss`)"


def build_graph(network: torch.nn.Module, model: Model, outputs: int, activation: Activation) -> onnx.ModelProto:
    """Return the graph of a model, from uint8 images and views to the mean score over views, with named logits.

    Raises ExportError: torch cannot trace it.
    """
    graph = trace_graph(KernelNetwork(network, model, activation), model.image_size)
    scores = trace_views(graph, outputs)
    name_logits(graph.graph, scores, activation)
    return graph


def trace_graph(network: KernelNetwork, image_size: int) -> onnx.ModelProto:
    """Trace the ONNX graph of a model, with any batch size. Raises ExportError: torch cannot trace it."""
    example = torch.zeros(EXPORT_BATCH, image_size, image_size, 3, dtype=torch.uint8)
    graph = trace_module(network, example, "image", "probabilities", MOST_AT_ONCE)
    pool_globally(graph)
    return graph


def predict_with_torch(
    network: torch.nn.Module, model: Model, batch: NDArray[np.uint8], activation: Activation
) -> NDArray[np.float32]:
    """Return torch's scores for a batch (images, height, width, 3), normalised as torchvision does."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.mean, model.std))
    with torch.inference_mode():
        normalised = torch.from_numpy(batch).permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)
        answer: NDArray[np.float32] = activate(network(normalised), activation).numpy()
    return answer


def _list_checkpoints(manifest: Manifest) -> Iterator[tuple[str, FileEntry]]:
    for index, model in enumerate(manifest.models):
        if model.checkpoint is None:
            raise ExportError(f"`models[{index}].checkpoint`: missing; wanted the checkpoint of {model.name}")
        yield f"models[{index}].checkpoint", model.checkpoint


def _read_earlier(out: Path) -> dict[str, OnnxEntry]:
    path = out / MANIFEST_NAME
    models = read_manifest(path).models if path.exists() else ()
    return {entry.source: entry for model in models for entry in model.onnx.values()}


def _find_earlier(earlier: Mapping[str, OnnxEntry], source: str, path: Path) -> OnnxEntry | None:
    entry = earlier.get(source)
    is_intact = entry and entry.file == path.name and path.is_file() and hash_file(path) == entry.sha256
    return entry if is_intact else None
