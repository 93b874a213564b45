"""Resizing of images to the square inputs of models."""

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

# A larger resized image (from a 1x7000 strip under `crop`) would need gigabytes.
MAX_RESIZED_PIXELS = 64_000_000
REDUCTIONS = (8, 4, 2)  # of each side, which libjpeg decodes at a lower cost
FILTERS: Mapping[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Geometry:
    """The form of a model's input; models with equal geometries share one resized array."""

    size: int
    """Side of the square, px."""
    resize: Resize
    interpolation: Interpolation
    tiles: Tiles | None = None


@dataclass(frozen=True)
class Draft:
    """Limits on decoding JPEG files at reduced size."""

    factor: float
    """The reduced image has at least this many times the size to which each geometry resizes it."""
    geometries: frozenset[Geometry]


def read_geometry(model: Model) -> Geometry:
    """Return the geometry of a model in the manifest."""
    return Geometry(model.image_size, model.resize, model.interpolation, model.tiles)


def read_draft(manifest: Manifest) -> Draft | None:
    """Return the manifest's limits for the geometries of all models: pixels must not depend on which models run."""
    if manifest.runtime.draft is None:
        return None
    return Draft(manifest.runtime.draft, frozenset(map(read_geometry, manifest.models)))


def choose_reduction(size: tuple[int, int], draft: Draft) -> int:
    """Return the largest of REDUCTIONS that leaves an image of `size` large enough for every geometry, else 1."""
    room = min((_measure_room(size, geometry) for geometry in draft.geometries), default=1.0)
    return next((reduction for reduction in REDUCTIONS if reduction * draft.factor <= room), 1)


def show_image(decoded: Decoded, geometry: Geometry) -> NDArray[np.uint8]:
    """Return a model's input for an image: (size, size, 3), or (tiles, size, size, 3) if the geometry has tiles.

    Raises ImageError, see `resize_image`.
    """
    if geometry.tiles is None:
        return resize_image(decoded.image, geometry, decoded.size, decoded.region)
    tiles = cut_tiles(decoded, geometry.tiles)
    return np.stack([resize_image(tile.image, geometry, tile.size, tile.region) for tile in tiles])


def resize_image(
    image: Image.Image, geometry: Geometry, size: tuple[int, int] | None = None, region: Region | None = None
) -> NDArray[np.uint8]:
    """Resize an image to (size, size, 3), bit for bit as timm's evaluation transform does.

    `size`, `region`: those of Decoded, for an image decoded at reduced size. Raises ImageError: the image is too thin
    to be resized.
    """
    size = size or image.size
    width, height, left, top = plan_resize(size, geometry)
    if width * height > MAX_RESIZED_PIXELS:
        raise ImageError(f"found {size[0]}x{size[1]}; `crop` needs {width}x{height}; wanted a thicker image")
    image = image.resize((width, height), FILTERS[geometry.interpolation], region)
    if image.size != (geometry.size, geometry.size):
        image = image.crop((left, top, left + geometry.size, top + geometry.size))
    return np.asarray(image)


def plan_resize(size: tuple[int, int], geometry: Geometry) -> tuple[int, int, int, int]:
    """Return width and height of the resized image, and left and top of the square in it, in px."""
    resized_size = math.floor(geometry.size / geometry.resize.percentage)
    width, height = resized_size, resized_size
    if geometry.resize.rule == "crop":
        short, long = sorted(size)
        stretched = int(resized_size * long / short)
        width, height = (resized_size, stretched) if size[0] <= size[1] else (stretched, resized_size)
    # round() rounds half to even, like torchvision.
    return width, height, round((width - geometry.size) / 2), round((height - geometry.size) / 2)


def _measure_room(size: tuple[int, int], geometry: Geometry) -> float:
    """Return the smaller of the ratios of source to resized side over both axes."""
    if geometry.tiles:  # all tiles of an image have one size
        left, top, right, bottom = plan_tiles(size, geometry.tiles.aspect, geometry.tiles.most)[0]
        size = right - left, bottom - top
    width, height, _, _ = plan_resize(size, geometry)
    return min(size[0] / width, size[1] / height)
