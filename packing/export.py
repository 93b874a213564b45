"""Checkpoint to ONNX: bytes of pictures in, probabilities out, and the proof that nothing changed on the way."""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from inference.errors import ExportError, ImagesError
from inference.files import hash_file, make_folder, replace_file
from inference.images import SUFFIXES, read_geometry, read_image, resize_image
from inference.labels import read_labels
from inference.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    Model,
    OnnxEntry,
    read_manifest,
    verify_files,
    write_manifest,
)
from inference.sessions import ModelSession
from packing.checkpoints import load_model
from packing.simplify import pool_globally

OPSET = 18
NEWEST_IR = 10  # the newest that every ONNX Runtime since 1.20 loads
PARITY_LIMIT = 1e-4
PARITY_IMAGES = 16
EXPORT_BATCH = 2


class Pictures(torch.nn.Module):
    """A timm model that takes uint8 pictures (batch, height, width, 3) and gives probabilities (batch, labels)."""

    def __init__(self, network: torch.nn.Module, model: Model) -> None:
        super().__init__()
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        mean, std = torch.tensor(model.mean), torch.tensor(model.std)
        self.network = network
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise, run the network, squash by the sigmoid."""
        pictures = image.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return torch.sigmoid(self.network(pictures))


def export_zoo(manifest_path: Path, out: Path, images: Path) -> Manifest:
    """Export every model of the manifest to OUT/NAME.onnx, and the manifest with them declared to OUT.

    An export that is up to date stays. `images`: a folder of at least 16 real images to measure parity on.
    Raises ExportError, CheckpointError, ManifestError or ImagesError.
    """
    manifest = read_manifest(manifest_path)
    home = manifest_path.parent
    verify_files([("labels", manifest.labels)], home)
    verify_files(_list_checkpoints(manifest), home)
    labels = read_labels(home / manifest.labels.file, manifest.labels.groups)
    examples = list_examples(images)
    make_folder(out)
    earlier = _read_earlier(out)
    models: list[Model] = []
    for model in tqdm(manifest.models, desc="export", unit="model", leave=False):
        outputs = len(labels.columns(model.group))
        source = hash_source(model, outputs)
        entry = earlier.get(source)
        if entry is None or not _is_intact(entry, model, out):
            assert model.checkpoint is not None
            network = load_model(home / model.checkpoint.file, model.architecture, outputs, model.image_size)
            entry = export_model(network, model, outputs, source, out, examples)
        models.append(dataclasses.replace(model, onnx={"fp32": entry}))
    exported = dataclasses.replace(manifest, models=tuple(models))
    write_manifest(exported, out / MANIFEST_NAME)
    return exported


def export_model(
    network: torch.nn.Module, model: Model, outputs: int, source: str, out: Path, examples: Sequence[Path]
) -> OnnxEntry:
    """Write OUT/NAME.onnx and measure it against `network` on the example images; see `OnnxEntry`.

    Raises ExportError, and leaves no file, where the probabilities differ by more than 1e-4.
    """
    path = out / f"{model.name}.onnx"
    graph = trace_graph(Pictures(network, model).eval(), model.image_size)
    with replace_file(path) as temporary:
        onnx.save(graph, temporary)
        batch = np.stack([resize_image(read_image(example), read_geometry(model)) for example in examples])
        answer = ModelSession(model.name, temporary, outputs).predict(batch)
        parity = float(np.abs(answer - predict_with_torch(network, model, batch)).max())
        if not parity <= PARITY_LIMIT:
            raise ExportError(
                f"model {model.name}: its ONNX differs from torch by {parity:.1e} on {len(batch)} images, "
                f"wanted at most {PARITY_LIMIT:.0e}"
            )
    return OnnxEntry(path.name, hash_file(path), OPSET, parity, source)


def trace_graph(pictures: Pictures, image_size: int) -> onnx.ModelProto:
    """The ONNX graph of a model, batch size left open; raises ExportError where torch cannot make it."""
    example = torch.zeros(EXPORT_BATCH, image_size, image_size, 3, dtype=torch.uint8)
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                pictures,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=4096)}},
                input_names=["image"],
                output_names=["probabilities"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"torch cannot export this network: {str(error).splitlines()[0]}") from error
    assert program is not None
    graph = program.model_proto
    graph.ir_version = min(graph.ir_version, NEWEST_IR)
    pool_globally(graph)
    _forget_home(graph)
    return graph


def predict_with_torch(network: torch.nn.Module, model: Model, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What torch says of a batch (images, height, width, 3), normalised in the order of torchvision's transforms."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.mean, model.std))
    with torch.inference_mode():
        pictures = torch.from_numpy(batch).permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)
        answer: NDArray[np.float32] = torch.sigmoid(network(pictures)).numpy()
    return answer


def hash_source(model: Model, outputs: int) -> str:
    """Hash of all that a model's graph is made from."""
    assert model.checkpoint is not None
    parts = [model.checkpoint.sha256, model.architecture, model.image_size, model.mean, model.std, outputs, OPSET]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def list_examples(folder: Path) -> list[Path]:
    """The first images of a folder by name, as many as parity wants; raises ImagesError where there are fewer."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)[:PARITY_IMAGES]
    if len(found) < PARITY_IMAGES:
        raise ImagesError(f"{folder}: holds {len(found)} images; parity is measured on {PARITY_IMAGES}, give --images")
    return found


def _list_checkpoints(manifest: Manifest) -> Iterator[tuple[str, FileEntry]]:
    for index, model in enumerate(manifest.models):
        if model.checkpoint is None:
            raise ExportError(f"`models[{index}].checkpoint`: missing; {model.name} has nothing to export")
        yield f"models[{index}].checkpoint", model.checkpoint


def _read_earlier(out: Path) -> dict[str, OnnxEntry]:
    path = out / MANIFEST_NAME
    models = read_manifest(path).models if path.exists() else ()
    return {model.onnx["fp32"].source: model.onnx["fp32"] for model in models if "fp32" in model.onnx}


def _is_intact(entry: OnnxEntry, model: Model, out: Path) -> bool:
    path = out / f"{model.name}.onnx"
    return entry.file == path.name and path.is_file() and hash_file(path) == entry.sha256


def _forget_home(graph: onnx.ModelProto) -> None:
    # The exporter notes stack traces: paths of this machine, and megabytes that the kernel would only read.
    for owner in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.functions):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
