"""Grad-CAM overlays: which places of an image support the labels that a network scores highest."""

import difflib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from inference.basics.errors import ImageError, ImagesError, TrainingError
from inference.basics.files import make_folder, replace_file
from inference.images.geometry import Geometry, plan_resize, read_geometry, resize_image
from inference.images.read import read_image
from inference.manifest.file import verify_files
from inference.manifest.labels import Labels
from inference.manifest.records import Model
from inference.models.views import VIEWS
from inference.task.image_places import SUFFIXES, find_images
from training.fit.predict_views import normalise
from zoo.networks import Network, open_network
from zoo.out_of_fold import Zoo, find_models, open_zoo
from zoo.train_table import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SHOWN = 3  # labels per model and group, at most
LARGEST = 1200  # px of the longer side in the overlay
STRENGTH = 0.65  # opacity of the colours at the maximum of the map
LEGEND = "Grad-CAM: colours show support for the label, red is highest; each map has its own scale"
LEGEND_OF_CROPS = f"{LEGEND}; dark: outside the model input"
# In inches: minimum width of a panel, which its caption needs; height of a line; gap between panels.
NARROWEST, LINE, GAP = 2.8, 0.16, 0.15
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
    probability: float
    """As in the kernel, the mean over the model's views."""
    threshold: float
    """The manifest's, for the group of the label."""
    heat: NDArray[np.float32]
    """(cells high, cells wide), at least 0, without unit, for the identity view of the model's square."""


def explain(
    manifest: Path,
    images: Path,
    ids: Sequence[str],
    out: Path,
    names: Sequence[str] = (),
    train: Path | None = None,
) -> None:
    """Write OUT/ID.png for each image: the image, then the best labels of each model and group with their maps.

    A map shows which places support the label: Grad-CAM on the last of timm's feature layers. `names`: models to show,
    with all their groups; default: per group, the first model with a weight above 0, preferably of that group only.
    `train`: table of the true labels. A model with tiles gets the whole image as one square, and its caption says so.
    Raises ManifestError, TableError, TrainingError or OutputError.
    """
    zoo = open_zoo(manifest)
    panels = choose_panels(zoo, names)
    paths = find_paths(images, ids)
    truth: dict[str, NDArray[np.bool_]] = {}
    if train is not None:
        table = read_table(train, zoo.labels)
        truth = dict(zip(table.ids, table.targets, strict=True))
    eyes = {model.name: open_eye(zoo, model) for model, _ in panels}
    make_folder(out)
    for name, path in paths.items():
        try:
            image = read_image(path)
            looks = [
                look
                for model, group in panels
                for look in look_at(
                    eyes[model.name],
                    image,
                    zoo.labels.columns(group),
                    zoo.manifest.decision.groups[group].threshold,
                    zoo.labels,
                )
            ]
        except ImageError as error:
            raise TrainingError(f"{images}: image {error}; wanted a readable image") from error
        figure = draw_page(name, image, looks, zoo.labels, truth.get(name))
        with replace_file(out / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
        print(out / f"{name}.png")


def choose_panels(zoo: Zoo, names: Sequence[str]) -> list[tuple[Model, str]]:
    """Choose pairs of a model and a group of its labels; raises TrainingError if there is none."""
    if names:
        # The name of a recipe means its first fold.
        chosen = {model.name: model for name in names for model in find_models(zoo, [name])[:1]}
        return [(model, group) for model in chosen.values() for group in zoo.manifest.groups_of(model)]
    panels = []
    for group in zoo.labels.groups:
        weights = zoo.manifest.ensemble.weights[group]
        weighed = [model for model in zoo.manifest.models if weights.get(model.name, 0) > 0]
        alone = [model for model in weighed if model.group == group]
        panels += [(model, group) for model in (alone or weighed)[:1]]
    if not panels:
        raise TrainingError(f"{zoo.path}: no model has a weight above 0; choose models with --models")
    return panels


def find_paths(folder: Path, ids: Sequence[str]) -> dict[str, Path]:
    """Find the file of each image; TrainingError names the first missing image and similar names."""
    try:
        found = find_images(folder, ids)
    except ImagesError as error:
        if not folder.is_dir():
            raise TrainingError(str(error)) from error
        found = [None] * len(ids)
    for name, path in zip(ids, found, strict=True):
        if path is None:
            stems = sorted({path.stem for path in folder.iterdir() if path.suffix.lower() in SUFFIXES})
            near = difflib.get_close_matches(name, stems, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"wanted one of its {len(stems)} images"
            raise TrainingError(f"{folder}: no image {name!r}; {hint}")
    return {name: path for name, path in zip(ids, found, strict=True) if path is not None}


def open_eye(zoo: Zoo, model: Model) -> Eye:
    """Prepare a model; raises TrainingError if its last feature layer has no map of the image."""
    network = open_network(model, zoo.home, len(zoo.labels.columns(model.group)))
    name, channels = "none", None
    shapes: list[tuple[int, ...]] = []
    layer = network.module
    infos: Any = getattr(network.module, "feature_info", None)
    if infos:
        name, channels = infos[-1]["module"], infos[-1]["num_chs"]
        layer = network.module.get_submodule(name)
        handle = layer.register_forward_hook(lambda _layer, _given, output: shapes.append(tuple(output.shape)))
        with torch.inference_mode():
            network.module(torch.zeros(1, 3, model.image_size, model.image_size))
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
        held_out = frozenset((zoo.home / model.out_of_fold.ids.file).read_text(encoding="utf-8").split())
    return Eye(model, network, layer, held_out)


def look_at(eye: Eye, image: Image.Image, columns: Sequence[int], threshold: float, labels: Labels) -> list[Look]:
    """Explain the best SHOWN of the labels `columns` with a score of at least `threshold`, or else the best one."""
    # A copy, because torch needs a writable array.
    square = np.array(resize_image(image, read_geometry(eye.model)))[None]
    batches = [normalise(VIEWS[view](square), eye.network.mean, eye.network.std, CPU) for view in eye.model.views]
    with torch.inference_mode():
        scores = torch.stack([eye.network.module(batch).sigmoid()[0] for batch in batches]).mean(dim=0).numpy()
    own = labels.columns(eye.model.group)
    places = np.searchsorted(own, columns)  # outputs of the group in the model's head
    best = places[np.argsort(-scores[places], kind="stable")[:SHOWN]].tolist()
    shown = normalise(square, eye.network.mean, eye.network.std, CPU)
    return [
        Look(
            eye,
            own[place],
            float(scores[place]),
            threshold,
            compute_heat(eye.network.module, eye.layer, shown, place),
        )
        for place in best
        if place == best[0] or scores[place] >= threshold
    ]


def compute_heat(
    module: torch.nn.Module, layer: torch.nn.Module, batch: torch.Tensor, output: int
) -> NDArray[np.float32]:
    """Compute the Grad-CAM map of one output before the sigmoid, for one image: (cells high, cells wide), >= 0.

    Method: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, 2017.
    """
    from captum.attr import LayerGradCam

    # The input requires gradients, so that Grad-CAM also works if all weights are frozen.
    given = batch.detach().clone().requires_grad_()
    heat = LayerGradCam(module, layer).attribute(given, target=output, relu_attributions=True)
    assert isinstance(heat, torch.Tensor)
    return heat.detach()[0, 0].numpy()


def locate_square(width: int, height: int, geometry: Geometry) -> tuple[int, int, int, int]:
    """Locate the part of an image that its square shows, in px: left, top, right, bottom."""
    wide, high, left, top = plan_resize((width, height), geometry)
    x, y = round(left * width / wide), round(top * height / high)
    right, bottom = round((left + geometry.size) * width / wide), round((top + geometry.size) * height / high)
    return x, y, max(right, x + 1), max(bottom, y + 1)


def spread_heat(heat: NDArray[np.float32], width: int, height: int, geometry: Geometry) -> NDArray[np.float32]:
    """Resize a map to the image, (height, width), bilinear; NaN outside the model's square."""
    left, top, right, bottom = locate_square(width, height, geometry)
    resized = Image.fromarray(heat).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    spread = np.full((height, width), np.nan, np.float32)
    spread[top:bottom, left:right] = np.asarray(resized)
    return spread


def overlay_heat(image: Image.Image, spread: NDArray[np.float32]) -> NDArray[np.float64]:
    """Draw the map in colours over the grey image, (height, width, 3), 0 to 1; dark where the map is NaN."""
    from matplotlib import colormaps

    grey = np.asarray(image.convert("L"), np.float64)[..., None] / 255
    highest = np.nanmax(spread)
    share = np.nan_to_num(spread / highest if highest > 0 else spread)[..., None]
    colours = colormaps["turbo"](share[..., 0])[..., :3]
    mixed: NDArray[np.float64] = grey + STRENGTH * share * (colours - grey)
    return np.where(np.isnan(spread)[..., None], 0.4 * mixed, mixed)


def draw_page(
    name: str, image: Image.Image, looks: Sequence[Look], labels: Labels, truth: NDArray[np.bool_] | None
) -> "Figure":
    """Draw the image and its maps in a row, or in a column if the image is wide; `truth`: (labels,) or None."""
    from matplotlib.figure import Figure

    image = image.copy()
    image.thumbnail((LARGEST, LARGEST))
    pictures, legend = [np.asarray(image) / 255], LEGEND
    captions = [[name] if truth is None else [name, "true: " + ", ".join(np.array(labels.names)[truth])]]
    for look in looks:
        spread = spread_heat(look.heat, image.width, image.height, read_geometry(look.eye.model))
        pictures.append(overlay_heat(image, spread))
        legend = LEGEND_OF_CROPS if np.isnan(spread).any() else legend
        captions.append(describe_look(look, name, labels, truth))
    ratio = image.width / image.height
    stacked = ratio > 2.5
    wide, high = (11.0, 11 / ratio) if stacked else (3.2 * ratio, 3.2) if ratio > 0.5 else (8 * ratio, 8.0)  # inches
    width = max(wide, NARROWEST) + GAP
    texts = ["\n".join(part for line in lines for part in textwrap.wrap(line, int(13 * width))) for lines in captions]
    height = high + LINE * (1.5 + max(text.count("\n") + 1 for text in texts))
    rows, columns = (len(texts), 1) if stacked else (1, len(texts))
    figure = Figure((columns * width, rows * height + 2 * LINE), dpi=100)
    whole_width, whole_height = figure.get_size_inches()
    for place, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        row, column = (place, 0) if stacked else (0, place)
        left, bottom = column * width + (width - wide) / 2, (rows - 1 - row) * height + 2 * LINE
        axes = figure.add_axes((left / whole_width, bottom / whole_height, wide / whole_width, high / whole_height))
        axes.imshow(picture, interpolation="bicubic", aspect="auto")
        axes.set_title(text, fontsize=8, parse_math=False)  # a label's name may contain $
        axes.axis("off")
    figure.text(0.5, LINE / whole_height, legend, fontsize=7, ha="center", va="center")
    return figure


def describe_look(look: Look, name: str, labels: Labels, truth: NDArray[np.bool_] | None) -> list[str]:
    """Return the caption of a map, as lines."""
    verdict = "" if truth is None else ", true" if truth[look.column] else ", false"
    lines = [
        f"{labels.names[look.column]}  {look.probability:.2f}{verdict}",
        f"{look.eye.model.name}, map of {look.heat.shape[1]} x {look.heat.shape[0]} cells",
    ]
    if name in look.eye.held_out:
        lines.append("image not used in its training")
    elif truth is not None:
        lines.append("image possibly used in its training")
    if look.eye.model.tiles:
        lines.append("map of the whole image; the kernel cuts long images into tiles")
    if look.probability < look.threshold:
        lines.append(f"best label, but below the threshold {look.threshold:g}")
    if not look.heat.any():
        lines.append("no support for the label in the map")
    return lines
