"""Predictions as in the kernel: its squares, its views, and their merge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from inference.images.geometry import Geometry, list_geometries, read_geometry
from inference.images.tiles import merge_tiles
from inference.manifest.labels import Labels
from inference.manifest.model import FEATURES, Model
from inference.manifest.task import Activation
from inference.manifest.values import Mirror, View
from inference.models.views import exchange_columns, merge_views, show_view
from training.data.pictures import Pictures
from training.data.samples import SquareSamples, load_squares
from zoo.activation import activate
from zoo.grey import to_grey


@dataclass(frozen=True)
class Showing:
    """How a model sees an image, and how its outputs become scores."""

    model: Model
    """Its size, normalisation, tiles, views and merge."""
    activation: Activation
    places: Mapping[View, NDArray[np.int64]]
    """View -> place of the output that each score is taken from, (outputs,): mirrored labels are exchanged back."""

    @property
    def geometries(self) -> list[Geometry]:
        """The geometries of the views, each once."""
        return list_geometries(self.model)


def describe_showing(
    model: Model, activation: Activation, labels: Labels, exchanged: Mapping[Mirror, Sequence[Sequence[int]]]
) -> Showing:
    """Return how a model sees an image; `exchanged`: `labels.exchanged` of the manifest."""
    outputs = np.arange(labels.count_outputs(model))
    places = {
        view: outputs if model.group == FEATURES else exchange_columns(view, model.group, labels, exchanged)
        for view in model.views
    }
    return Showing(model, activation, places)


def normalise(
    squares: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], device: torch.device
) -> torch.Tensor:
    """Convert (images, height, width, 3) of uint8 to a float32 batch (images, channels, height, width).

    One number for `mean` and `std` means grey. The batch is channels last in memory.
    """
    shown = torch.from_numpy(squares).to(device)
    batch = (to_grey(shown) if len(mean) == 1 else shown).permute(0, 3, 1, 2).float() / 255
    shape = (1, len(mean), 1, 1)
    return (batch - torch.tensor(mean, device=device).view(shape)) / torch.tensor(std, device=device).view(shape)


def score_squares(
    module: torch.nn.Module,
    showing: Showing,
    squares: Mapping[Geometry, NDArray[np.uint8]],
    counts: Sequence[int],
    device: torch.device,
) -> NDArray[np.float32]:
    """Return the scores of a batch of images, (images, outputs), with tiles merged per view, then views.

    `squares`: by geometry, (squares of all images, height, width, 3); `counts`: number of squares of each image.
    """
    model, parts = showing.model, []
    for view in model.views:
        shown = show_view(squares[read_geometry(model, view)], view, model.size)
        outputs = module(normalise(shown, model.mean, model.std, device)).float()
        scores = activate(outputs, showing.activation).cpu().numpy()
        if model.tiles:
            scores = merge_tiles(scores, counts, model.tiles.merge)
        parts.append((1, scores[:, showing.places[view]]))
    return merge_views(parts, model.merge)


def predict_views(
    module: torch.nn.Module,
    showing: Showing,
    pictures: Pictures,
    rows: NDArray[np.int64],
    device: torch.device,
    batch_size: int,
    workers: int,
    title: str,
) -> NDArray[np.float32]:
    """Return the scores of the images at `rows`, (images, outputs). Raises TrainingError, see SquareSamples."""
    samples = SquareSamples(pictures, rows, showing.geometries)
    module.eval().to(memory_format=torch.channels_last)  # an eighth faster on two cores, resnet10t at 64 px
    parts = []
    with torch.inference_mode(), tqdm(total=len(samples), desc=title, unit="img", mininterval=1) as bar:
        for squares, counts in load_squares(samples, batch_size, workers):
            parts.append(score_squares(module, showing, squares, counts, device))
            bar.update(len(counts))
    return np.concatenate(parts)
