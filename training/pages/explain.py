"""The command `explain`: one page per image, with the maps of what supports its labels drawn over it."""

import difflib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.basics.errors import ImageError, TrainingError
from inference.basics.files import make_folder, replace_file
from inference.images.geometry import Geometry, plan_resize, plan_source
from inference.images.read import read_image
from inference.manifest.model import Model
from inference.task.image_places import SUFFIXES
from training.data.pictures import locate_images
from training.pages.choose import find_labelled
from training.pages.explain_maps import SHOWN, Look, frame_map, look_at, open_eye, read_value
from zoo.tables.out_of_fold import Zoo, open_zoo
from zoo.tables.train_table import Table, read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LARGEST = 1200  # px of the longer side in the overlay
STRENGTH = 0.65  # opacity of the colours at the maximum of the map
LEGEND = "Grad-CAM: colours show support for the label, red is highest; each map has its own scale"
LEGEND_OF_NUMBERS = "Grad-CAM: colours show what raises the number, red is highest; each map has its own scale"
OUTSIDE = "; dark: outside the model input"
# In inches: minimum width of a panel, which its caption needs; height of a line; gap between panels.
NARROWEST, LINE, GAP = 2.8, 0.16, 0.15


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
    `train`: table of the truth; if it names files, `images` is the competition's folder. A model with tiles gets the
    whole image as one square, and its caption says so. Raises ManifestError, TableError, TrainingError or OutputError.
    """
    zoo = open_zoo(manifest)
    panels = choose_panels(zoo, names)
    task = zoo.manifest.task
    table = None if train is None else read_table(train, zoo.labels, task)
    truth = {} if table is None else dict(zip(table.ids, table.targets, strict=True))
    paths = find_paths(images, ids, table)
    eyes = {model.name: open_eye(zoo, model) for model, _ in panels}
    make_folder(out)
    for name, path in paths.items():
        try:
            image = read_image(path)
            looks = [look for model, group in panels for look in look_at(eyes[model.name], image, zoo, group)]
        except ImageError as error:
            raise TrainingError(f"{images}: image {error}; wanted a readable image") from error
        figure = draw_page(name, image, looks, zoo, truth.get(name))
        with replace_file(out / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
        print(out / f"{name}.png")


def choose_panels(zoo: Zoo, names: Sequence[str]) -> list[tuple[Model, str]]:
    """Choose pairs of a model and a group of its labels; raises TrainingError if there is none."""
    if names:
        # The name of a member means its first fold.
        chosen = {model.name: model for name in names for model in find_labelled(zoo, [name])[:1]}
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


def find_paths(folder: Path, ids: Sequence[str], table: Table | None) -> dict[str, Path]:
    """Find the file of each image; TrainingError names the first missing image and similar names.

    `table`: if it names files, `folder` is where their paths start.
    """
    named = {} if table is None or table.images is None else dict(zip(table.ids, table.images, strict=True))
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder of images; give the folder of the images with --images")
    found = locate_images(folder, ids)
    found = [folder / named[name] if name in named else path for name, path in zip(ids, found, strict=True)]
    for name, path in zip(ids, found, strict=True):
        if path is None or not path.is_file():
            stems = sorted({path.stem for path in folder.iterdir() if path.suffix.lower() in SUFFIXES})
            near = difflib.get_close_matches(name, stems, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"wanted one of its {len(stems)} images"
            raise TrainingError(f"{folder}: no image {name!r}; {hint}")
    return {name: path for name, path in zip(ids, found, strict=True) if path is not None}


def locate_square(width: int, height: int, geometry: Geometry) -> tuple[int, int, int, int]:
    """Locate what a model's input shows of an image, in px: left, top, right, bottom.

    Under `letterbox` they are outside of the image where the input has borders.
    """
    from_left, from_top, to_right, to_bottom = plan_source((width, height), geometry)
    wide, high, left, top = plan_resize((width, height), geometry)
    across, down = (to_right - from_left) / wide, (to_bottom - from_top) / high  # px of the image per px of the input
    x, y = from_left + round(left * across), from_top + round(top * down)
    right = from_left + round((left + geometry.size[1]) * across)
    bottom = from_top + round((top + geometry.size[0]) * down)
    return x, y, max(right, x + 1), max(bottom, y + 1)


def spread_heat(heat: NDArray[np.float32], width: int, height: int, geometry: Geometry) -> NDArray[np.float32]:
    """Resize a map to the image, (height, width), bilinear; NaN outside the model's input."""
    left, top, right, bottom = locate_square(width, height, geometry)
    resized = Image.fromarray(heat).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    spread = np.full((height, width), np.nan, np.float32)
    inside = np.asarray(resized)[max(-top, 0) : height - top, max(-left, 0) : width - left]
    spread[max(top, 0) : max(top, 0) + len(inside), max(left, 0) : max(left, 0) + inside.shape[1]] = inside
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


def draw_page(name: str, image: Image.Image, looks: Sequence[Look], zoo: Zoo, truth: NDArray[Any] | None) -> "Figure":
    """Draw the image and its maps in a row, or in a column if the image is wide; `truth`: (labels,) or None."""
    from matplotlib.figure import Figure

    image = image.copy()
    image.thumbnail((LARGEST, LARGEST))
    legend = LEGEND_OF_NUMBERS if zoo.manifest.task.type == "regression" else LEGEND
    pictures, outside = [np.asarray(image) / 255], False
    captions = [[name] if truth is None else [name, f"true: {describe_truth(truth, zoo)}"]]
    for look in looks:
        spread = spread_heat(look.heat, image.width, image.height, frame_map(look.eye.model))
        pictures.append(overlay_heat(image, spread))
        outside = outside or bool(np.isnan(spread).any())
        captions.append(describe_look(look, name, zoo, truth))
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
    figure.text(0.5, LINE / whole_height, legend + OUTSIDE * outside, fontsize=7, ha="center", va="center")
    return figure


def describe_truth(truth: NDArray[Any], zoo: Zoo) -> str:
    """Return the true labels of an image, with their shares if they are soft, or its number; `truth`: (labels,)."""
    names, task = zoo.labels.names, zoo.manifest.task
    if task.type == "regression":
        return f"{read_value(float(truth[0]), task):.4g}"
    if task.type == "binary":
        return names[0] if truth[0] else f"not {names[0]}"
    if truth.dtype == np.bool_:
        return ", ".join(np.array(names)[truth]) or "no label"
    order = np.argsort(-truth, kind="stable")[:SHOWN]
    return ", ".join(f"{names[column]} {truth[column]:.2f}" for column in order if truth[column] > 0)


def describe_look(look: Look, name: str, zoo: Zoo, truth: NDArray[Any] | None) -> list[str]:
    """Return the caption of a map, as lines; it says where the kernel sees more than the map shows."""
    label = zoo.labels.names[look.column]
    if zoo.manifest.task.type == "regression":
        lines = [f"{label}: predicted {look.score:.4g}"]
    else:
        hard = truth is not None and truth.dtype == np.bool_
        verdict = "" if truth is None or not hard else ", true" if truth[look.column] else ", false"
        lines = [f"{label}  {look.score:.2f}{verdict}"]
    lines.append(f"{look.eye.model.name}, map of {look.heat.shape[1]} x {look.heat.shape[0]} cells")
    if name in look.eye.held_out:
        lines.append("image not used in its training")
    elif truth is not None:
        lines.append("image possibly used in its training")
    if look.eye.model.tiles:
        lines.append("map of the whole image; the kernel cuts long images into tiles")
    if not {"identity", "hflip"}.issuperset(look.eye.model.views):
        lines.append("map of the centre, upright; the score is of all views")
    if look.score < look.threshold:
        lines.append(f"best label, but below the threshold {look.threshold:g}")
    if not look.heat.any():
        lines.append("no support for the label in the map")
    return lines
