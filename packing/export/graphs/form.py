"""What a graph does besides its network: the input, the views, the scores; in a module without torch, for `pack`."""

from dataclasses import dataclass

import numpy as np

from inference.images.geometry import read_geometry
from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.manifest.records import Manifest
from inference.manifest.task import Activation
from inference.manifest.values import Merge, Size
from inference.models.views import exchange_columns


@dataclass(frozen=True)
class Form:
    """What a graph does before and after its network."""

    frame: Size
    """Height and width of the images that it gets."""
    size: Size
    """Height and width of the network's input."""
    mean: tuple[float, ...]
    """Per channel, for values from 0 to 1; also `std`. One number: the network sees grey."""
    std: tuple[float, ...]
    outputs: int
    activation: Activation
    cuts: tuple[str, ...] = ("identity",)
    """The views that it makes; its input `views` has indices of these."""
    merge: Merge = "mean"
    exchanged: tuple[tuple[int, ...], ...] = ()
    """For each cut, the place in its scores of each score; empty: no cut exchanges any."""

    @property
    def measured(self) -> str:
        """The one view in which precisions are compared."""
        return "identity" if "identity" in self.cuts else self.cuts[0]


def read_form(manifest: Manifest, model: Model, labels: Labels) -> Form:
    """Return the form of a model's graph."""
    group, exchanged = model.group, manifest.labels.exchanged
    places = [exchange_columns(cut, group, labels, exchanged) for cut in model.cuts]
    is_any = any(not np.array_equal(own, np.arange(len(own))) for own in places)
    return Form(
        read_geometry(model).shape,
        model.size,
        model.mean,
        model.std,
        labels.count_outputs(model),
        manifest.activation_of(model),
        model.cuts,
        model.merge,
        tuple(tuple(own.tolist()) for own in places) if is_any else (),
    )
