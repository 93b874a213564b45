"""A model before its export: how its graph is made, and the scores that the graph must reproduce."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image

from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.models.views import show_view
from packing.export.foreign import predict_foreign, wrap_foreign
from packing.export.foreign_graph import read_foreign
from packing.export.graphs.form import Form
from packing.export.graphs.network import build_graph, finish_graph
from zoo.activation import activate
from zoo.networks import load_network, read_design

Batch = NDArray[np.uint8]  # (images, height, width, 3)


@dataclass(frozen=True)
class Original:
    """A network as its team made it."""

    build: Callable[[], onnx.ModelProto]
    """Make its graph with views; raises ExportError."""
    predict: Callable[[Batch], NDArray[np.float32]]
    """From images in the size of the network's input to scores (images, outputs)."""


def open_original(model: Model, home: Path, labels: Labels, form: Form) -> Original:
    """Open the network of a model, or its graph if that was made elsewhere; its checkpoint has been verified.

    Raises ManifestError where a factory's hash differs, CheckpointError or ExportError.
    """
    assert model.checkpoint is not None
    path = home / model.checkpoint.file
    if model.layout is None:
        network = load_network(path, read_design(model, home, labels), model.ema).module
        return describe_network(network, form)
    foreign = read_foreign(path, model)
    return Original(
        lambda: finish_graph(wrap_foreign(foreign, model, labels, form.activation), form),
        functools.partial(predict_foreign, foreign, model, labels, form.activation),
    )


def describe_network(network: torch.nn.Module, form: Form) -> Original:
    """Return a torch network as an original."""
    return Original(functools.partial(build_graph, network, form), functools.partial(predict_with_torch, network, form))


def predict_view(original: Original, form: Form, batch: Batch, cut: str) -> NDArray[np.float32]:
    """Return the original's scores (images, outputs) of images in the shape `form.frame` in one of the form's views."""
    scores = original.predict(show_view(batch, cut, form.size))
    return scores[:, form.exchanged[form.cuts.index(cut)]] if form.exchanged else scores


def predict_with_torch(network: torch.nn.Module, form: Form, batch: Batch) -> NDArray[np.float32]:
    """Return torch's scores for a batch, normalised as torchvision does; grey as Pillow makes it."""
    if len(form.mean) == 1:
        batch = np.stack([np.asarray(Image.fromarray(image).convert("L"))[..., None] for image in batch])
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (form.mean, form.std))
    with torch.inference_mode():
        normalised = torch.tensor(batch).permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)
        answer: NDArray[np.float32] = activate(network(normalised), form.activation).numpy()
    return answer
