"""TODO."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.basics.errors import ImageError
from inference.images.tiles import Decoded, Region, cut_tiles, plan_tiles
from inference.manifest.records import Manifest, Model, Resize, Tiles
from inference.manifest.values import Interpolation

# A resized strip of more pixels (a 1x7000 line under `crop`) would take gigabytes.
MAX_RESIZED_PIXELS = 64_000_000
REDUCTIONS = (8, 4, 2)  # that libjpeg decodes at less cost, of each side
FILTERS: Mapping[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Geometry:
    """The square that a model looks at, or each of its tiles; models with equal geometries share one resized array."""

    size: int
    resize: Resize
    interpolation: Interpolation
    tiles: Tiles | None = None


@dataclass(frozen=True)
class Draft:
    """How far JPEG files may be decoded reduced: `factor` times what each geometry resizes to must be left."""

    factor: float
    geometries: frozenset[Geometry]


def read_geometry(model: Model) -> Geometry:
    """The geometry that the manifest gives a model."""
    return Geometry(model.image_size, model.resize, model.interpolation, model.tiles)


def read_draft(manifest: Manifest) -> Draft | None:
    """What the manifest allows; by all of its models, so that an image is the same whichever of them run."""
    if manifest.runtime.draft is None:
        return None
    return Draft(manifest.runtime.draft, frozenset(map(read_geometry, manifest.models)))


def choose_reduction(size: tuple[int, int], draft: Draft) -> int:
    """The largest of REDUCTIONS after which a picture of `size` is large enough for every geometry; 1 for none."""
    room = min((_measure_room(size, geometry) for geometry in draft.geometries), default=1.0)
    return next((reduction for reduction in REDUCTIONS if reduction * draft.factor <= room), 1)


def show_image(decoded: Decoded, geometry: Geometry) -> NDArray[np.uint8]:
    """What a model is shown of an image: its square, (size, size, 3); where it has tiles, (tiles, size, size, 3).

    Raises ImageError as `resize_image`.
    """
    if geometry.tiles is None:
        return resize_image(decoded.image, geometry, decoded.size, decoded.region)
    tiles = cut_tiles(decoded, geometry.tiles)
    return np.stack([resize_image(tile.image, geometry, tile.size, tile.region) for tile in tiles])


def resize_image(
    image: Image.Image, geometry: Geometry, size: tuple[int, int] | None = None, region: Region | None = None
) -> NDArray[np.uint8]:
    """The whole image as the (size, size, 3) square of a model, bit by bit as timm's evaluation transform makes it.

    `size`, `region`: of what was decoded reduced, as Decoded has them. Raises ImageError where a strip is too thin to
    be resized.
    """
    size = size or image.size
    width, height, left, top = plan_resize(size, geometry)
    if width * height > MAX_RESIZED_PIXELS:
        raise ImageError(f"an image of {size[0]}x{size[1]} would become {width}x{height} under `crop`")
    image = image.resize((width, height), FILTERS[geometry.interpolation], region)
    if image.size != (geometry.size, geometry.size):
        image = image.crop((left, top, left + geometry.size, top + geometry.size))
    return np.asarray(image)


def plan_resize(size: tuple[int, int], geometry: Geometry) -> tuple[int, int, int, int]:
    """To what width and height an image of this size is resized, and where the square's left and top then lie; px."""
    resized_size = math.floor(geometry.size / geometry.resize.percentage)
    width, height = resized_size, resized_size
    if geometry.resize.rule == "crop":
        short, long = sorted(size)
        stretched = int(resized_size * long / short)
        width, height = (resized_size, stretched) if size[0] <= size[1] else (stretched, resized_size)
    # Half to even, as torchvision rounds.
    return width, height, round((width - geometry.size) / 2), round((height - geometry.size) / 2)


def _measure_room(size: tuple[int, int], geometry: Geometry) -> float:
    """How many times as large as it is resized to is what a model looks at, in the direction where it is less."""
    if geometry.tiles:  # all of an image are of one size
        left, top, right, bottom = plan_tiles(size, geometry.tiles.aspect, geometry.tiles.most)[0]
        size = right - left, bottom - top
    width, height, _, _ = plan_resize(size, geometry)
    return min(size[0] / width, size[1] / height)
