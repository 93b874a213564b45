"""Resizing of images to the inputs of models."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.basics.errors import ImageError
from inference.images.tiles import Box, Decoded, Region, cut_box, cut_tiles, plan_tiles
from inference.manifest.model import Model, Resize, Tiles
from inference.manifest.records import Manifest
from inference.manifest.values import MAX_RESIZED_PIXELS, Interpolation, Size, View, split_view

REDUCTIONS = (8, 4, 2)  # of each side, which libjpeg decodes at a lower cost
TRIMMED = 2  # `trim` cuts off what is beyond this many times the size: the rule of the 1st place of iMet 2019
FILTERS: Mapping[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Geometry:
    """The form of a model's input; models with equal geometries share one resized array."""

    size: Size
    """Of the network's input: the centre of the resized image."""
    resize: Resize
    interpolation: Interpolation
    tiles: Tiles | None = None
    frame: Size | None = None
    """Of the array, if the graph cuts views out of its corners; None: `size`."""
    fill: tuple[int, int, int] = (0, 0, 0)
    """Colour of the borders of `letterbox`."""

    @property
    def shape(self) -> Size:
        """Height and width of the array."""
        return self.frame or self.size

    @property
    def resized(self) -> Size:
        """Height and width of the whole image under `squash`: timm divides by crop_pct and rounds down."""
        height, width = self.size
        return math.floor(height / self.resize.percentage), math.floor(width / self.resize.percentage)


@dataclass(frozen=True)
class Draft:
    """Limits on decoding JPEG files at reduced size."""

    factor: float
    """The reduced image has at least this many times the size to which each geometry resizes it."""
    geometries: frozenset[Geometry]


def read_geometry(model: Model, view: View = "identity") -> Geometry:
    """Return the geometry of a model in the manifest, for its views of the same scale as `view`."""
    geometry = Geometry(model.size, model.resize, model.interpolation, model.tiles)
    if model.resize.rule == "letterbox":  # as timm's crop mode `border`
        red, green, blue = (round(255 * value) for value in (model.mean * 3)[:3])
        geometry = dataclasses.replace(geometry, fill=(red, green, blue))
    if any(split_view(own).corner for own in model.views):
        geometry = dataclasses.replace(geometry, frame=geometry.resized)
    percentage = model.resize.percentage * 100 / split_view(view).scale
    return dataclasses.replace(geometry, resize=Resize(model.resize.rule, percentage))


def list_geometries(model: Model) -> list[Geometry]:
    """Return the geometries of a model's views, each once."""
    return list(dict.fromkeys(read_geometry(model, view) for view in model.views))


def read_draft(manifest: Manifest) -> Draft | None:
    """Return the manifest's limits for the geometries of all models: pixels must not depend on which models run."""
    if manifest.runtime.draft is None:
        return None
    geometries = (geometry for model in manifest.models for geometry in list_geometries(model))
    return Draft(manifest.runtime.draft, frozenset(geometries))


def choose_reduction(size: tuple[int, int], draft: Draft) -> int:
    """Return the largest of REDUCTIONS that leaves an image of `size` large enough for every geometry, else 1."""
    room = min((_measure_room(size, geometry) for geometry in draft.geometries), default=1.0)
    return next((reduction for reduction in REDUCTIONS if reduction * draft.factor <= room), 1)


def show_image(decoded: Decoded, geometry: Geometry) -> NDArray[np.uint8]:
    """Return a model's input for an image: (height, width, 3), or (tiles, height, width, 3) if it has tiles.

    Raises ImageError, see `resize_image`.
    """
    if geometry.tiles is None:
        return resize_image(decoded.image, geometry, decoded.size, decoded.region)
    tiles = cut_tiles(decoded, geometry.tiles)
    return np.stack([resize_image(tile.image, geometry, tile.size, tile.region) for tile in tiles])


def resize_image(
    image: Image.Image, geometry: Geometry, size: tuple[int, int] | None = None, region: Region | None = None
) -> NDArray[np.uint8]:
    """Resize an image to (height, width, 3) of the geometry, bit for bit as timm's evaluation transforms do.

    `size` (width, height), `region`: those of Decoded, for an image decoded at reduced size. Raises ImageError: the
    image is too thin to be resized.
    """
    size = size or image.size
    box = plan_source(size, geometry)
    if box != (0, 0, *size):
        cut = cut_box(Decoded(image, size, region or (0, 0, *size)), box)
        image, region = cut.image, cut.region
    width, height, left, top = plan_resize(size, geometry)
    if width * height > MAX_RESIZED_PIXELS:
        raise ImageError(f"found {size[0]}x{size[1]}; `crop` needs {width}x{height}; wanted a thicker image")
    image = image.resize((width, height), FILTERS[geometry.interpolation], region)
    down, across = geometry.shape
    if image.size == (across, down):
        return np.asarray(image)
    if left >= 0 and top >= 0 and left + across <= width and top + down <= height:
        return np.asarray(image.crop((left, top, left + across, top + down)))
    canvas = Image.new("RGB", (across, down), geometry.fill)
    canvas.paste(image, (-left, -top))
    return np.asarray(canvas)


def plan_source(size: tuple[int, int], geometry: Geometry) -> Box:
    """Return the part of an image of `size` (width, height) that is resized, in px: all of it, except under `trim`."""
    width, height = size
    if geometry.resize.rule == "trim":
        most_height, most_width = (TRIMMED * side for side in geometry.resized)
        width, height = min(width, most_width), min(height, most_height)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def plan_resize(size: tuple[int, int], geometry: Geometry) -> tuple[int, int, int, int]:
    """Return width and height of the resized image, and left and top of the array in it, in px.

    `size`: width and height of the image. Left and top are below 0 where the array has borders.
    """
    height, width = geometry.resized
    if geometry.resize.rule == "letterbox":
        width, height = _keep_aspect(size, (width, height), is_inside=True)
    elif geometry.resize.rule == "crop" and width != height:
        width, height = _keep_aspect(size, (width, height), is_inside=False)
    elif geometry.resize.rule == "crop":  # torchvision's Resize to the short side rounds down
        short, long = sorted(size)
        stretched = int(width * long / short)
        width, height = (width, stretched) if size[0] <= size[1] else (stretched, height)
    (down, across), (inner_down, inner_across) = geometry.shape, geometry.size
    return width, height, _place(width, inner_across, across), _place(height, inner_down, down)


def _keep_aspect(size: tuple[int, int], target: tuple[int, int], is_inside: bool) -> tuple[int, int]:
    """Return the size with the image's aspect ratio: inside of `target`, or covering it; all (width, height)."""
    ratios = size[0] / target[0], size[1] / target[1]
    ratio = max(ratios) if is_inside else min(ratios)
    return max(round(size[0] / ratio), 1), max(round(size[1] / ratio), 1)


def _place(resized: int, inner: int, outer: int) -> int:
    """Return where the array starts on an axis, so that the network's input in its centre is timm's centre crop.

    `resized`, `inner`, `outer`: px of the resized image, of the input and of the array.
    """
    # round() rounds half to even, like torchvision; borders are rounded down.
    start = round((resized - inner) / 2) if resized >= inner else -((inner - resized) // 2)
    start -= round((outer - inner) / 2)
    return min(max(start, 0), resized - outer) if resized >= outer else start


def _measure_room(size: tuple[int, int], geometry: Geometry) -> float:
    """Return the smaller of the ratios of source to resized side over both axes."""
    if geometry.tiles:  # all tiles of an image have one size
        left, top, right, bottom = plan_tiles(size, geometry.tiles.aspect, geometry.tiles.most)[0]
        size = right - left, bottom - top
    left, top, right, bottom = plan_source(size, geometry)
    width, height, _, _ = plan_resize(size, geometry)
    return min((right - left) / width, (bottom - top) / height)
