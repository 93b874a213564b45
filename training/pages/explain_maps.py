"""Grad-CAM maps: which places of an image support the labels that a network scores highest."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from inference.basics.errors import TrainingError
from inference.basics.files import read_text
from inference.images.geometry import Geometry, read_geometry, resize_image
from inference.manifest.decision import Decision
from inference.manifest.file import verify_files
from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.manifest.task import Task
from training.fit.predict_views import describe_showing, normalise, score_squares
from zoo.networks import Network, open_network
from zoo.tables.out_of_fold import Zoo, split_lines

SHOWN = 3  # labels per model and group, at most
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Eye:
    """A model of the zoo, prepared for Grad-CAM."""

    model: Model
    network: Network
    layer: torch.nn.Module
    """Its output is the input of Grad-CAM."""
    held_out: frozenset[str]
    """Ids of images not used in its training."""


@dataclass(frozen=True)
class Look:
    """One label of an image: the model's probability and its Grad-CAM map."""

    eye: Eye
    column: int
    score: float
    """As in the kernel, merged over the model's views; of regression in the competition's units."""
    threshold: float
    """From which the label is selected; 0 where no threshold decides."""
    heat: NDArray[np.float32]
    """(cells high, cells wide), at least 0, without unit, for the identity view: the other views are not drawn."""


def open_eye(zoo: Zoo, model: Model) -> Eye:
    """Prepare a model; raises TrainingError if its last feature layer has no map of the image."""
    network = open_network(model, zoo.home, zoo.labels)
    name, channels = "none", None
    shapes: list[tuple[int, ...]] = []
    layer = network.module
    infos: Any = getattr(network.module, "feature_info", None)
    if infos:
        name, channels = infos[-1]["module"], infos[-1]["num_chs"]
        layer = network.module.get_submodule(name)
        handle = layer.register_forward_hook(lambda _layer, _given, output: shapes.append(tuple(output.shape)))
        with torch.inference_mode():
            network.module(torch.zeros(1, model.channels, *model.size))
        handle.remove()
    found = shapes[-1] if shapes else ()
    if len(found) != 4 or found[1] != channels or found[2] * found[3] < 2:
        shape = " x ".join(map(str, found[1:])) or "nothing"
        raise TrainingError(
            f"model {model.name}: last feature layer, {name} of {model.architecture}: found {shape}; wanted channels x "
            "height x width of several cells, as in convolutional networks; choose other models with --models"
        )
    held_out: frozenset[str] = frozenset()
    if model.out_of_fold is not None:
        verify_files([(f"{model.name}.out_of_fold.ids", model.out_of_fold.ids)], zoo.home)
        held_out = frozenset(split_lines(read_text(zoo.home / model.out_of_fold.ids.file)))
    return Eye(model, network, layer, held_out)


def look_at(eye: Eye, image: Image.Image, zoo: Zoo, group: str) -> list[Look]:
    """Explain the best SHOWN of a group's labels: those that a threshold selects, and always the best one."""
    manifest, labels, columns = zoo.manifest, zoo.labels, zoo.labels.columns(group)
    showing = describe_showing(eye.model, manifest.activation_of(eye.model), labels, manifest.labels.exchanged)
    # Copies, because torch needs writable arrays. A model with tiles gets the whole image as one square.
    squares = {geometry: np.array(resize_image(image, geometry))[None] for geometry in showing.geometries}
    with torch.inference_mode():
        scores = score_squares(eye.network.module, showing, squares, [1], CPU)[0]
    thresholds = list_thresholds(manifest.decision, labels, group)
    own = labels.columns(eye.model.group)
    places = np.searchsorted(own, columns)  # outputs of the group in the model's head
    best = places[np.argsort(-scores[places], kind="stable")[:SHOWN]].tolist()
    square = np.array(resize_image(image, frame_map(eye.model)))[None]
    shown = normalise(square, eye.model.mean, eye.model.std, CPU)
    return [
        Look(
            eye,
            own[place],
            read_value(float(scores[place]), manifest.task),
            thresholds[own[place]],
            compute_heat(eye.network.module, eye.layer, shown, place),
        )
        for place in best
        if place == best[0] or scores[place] >= thresholds[own[place]]
    ]


def frame_map(model: Model) -> Geometry:
    """Return the geometry of the identity view alone, which the maps are of: the centre of a frame for corner views."""
    return dataclasses.replace(read_geometry(model), frame=None)


def list_thresholds(decision: Decision, labels: Labels, group: str) -> dict[int, float]:
    """Return the threshold of each column of a group; 0 if the decision's rule has none."""
    columns, single = labels.columns(group), decision.fitted.label_thresholds
    if decision.rule not in ("thresholds", "expected_f"):
        return dict.fromkeys(columns, 0.0)
    return {column: single[column] if single else decision.groups[group].threshold for column in columns}


def read_value(score: float, task: Task) -> float:
    """Return a number in the competition's units from a score of regression; other scores as they are."""
    low, high = task.value_range if task.type == "regression" else (0.0, 1.0)
    return low + (high - low) * score


def compute_heat(
    module: torch.nn.Module, layer: torch.nn.Module, batch: torch.Tensor, output: int
) -> NDArray[np.float32]:
    """Compute the Grad-CAM map of one output before the activation, for one image: (cells high, cells wide), >= 0.

    Method: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, 2017.
    """
    from captum.attr import LayerGradCam

    # The input requires gradients, so that Grad-CAM also works if all weights are frozen.
    given = batch.detach().clone().requires_grad_()
    heat = LayerGradCam(module, layer).attribute(given, target=output, relu_attributions=True)
    assert isinstance(heat, torch.Tensor)
    return heat.detach()[0, 0].numpy()
