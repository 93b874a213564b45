"""Shapes of the tags, as lines and filled areas in a unit square, with y downwards."""

import math
from collections.abc import Mapping
from typing import Literal

from PIL import Image, ImageDraw

Point = tuple[float, float]
# ("fill", polygon) | ("disc", two corners) | ("hole", two corners) | ("line", polyline); `hole` erases.
Stroke = tuple[Literal["fill", "disc", "hole", "line"], tuple[Point, ...]]

DETAIL = 2  # factor of drawing larger and reducing, for smooth edges
LINE_WIDTH = 0.09


def _turn(count: int, radius: float, start: float = -90.0) -> list[Point]:
    angles = [math.radians(start + 360 * step / count) for step in range(count)]
    return [(0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)) for angle in angles]


def _round(x: float, y: float, radius: float) -> tuple[Point, Point]:
    return (x - radius, y - radius), (x + radius, y + radius)


def _wave(count: int) -> tuple[Point, ...]:
    return tuple(
        (0.05 + 0.9 * step / count, 0.5 + 0.2 * math.sin(2.2 * math.tau * step / count)) for step in range(count + 1)
    )


def _star() -> tuple[Point, ...]:
    outer, inner = _turn(5, 0.48), _turn(5, 0.2, -54)
    return tuple(point for pair in zip(outer, inner, strict=True) for point in pair)


SHAPES: Mapping[str, tuple[Stroke, ...]] = {
    "birds": (
        ("line", ((0.05, 0.45), (0.3, 0.3), (0.5, 0.55), (0.7, 0.3), (0.95, 0.45))),
        ("disc", _round(0.5, 0.6, 0.11)),
    ),
    "boats": (
        ("fill", ((0.05, 0.62), (0.95, 0.62), (0.75, 0.88), (0.25, 0.88))),
        ("line", ((0.5, 0.62), (0.5, 0.1))),
        ("fill", ((0.54, 0.12), (0.54, 0.55), (0.85, 0.55))),
    ),
    "bridges": (
        ("fill", ((0.02, 0.35), (0.98, 0.35), (0.98, 0.75), (0.02, 0.75))),
        ("hole", ((0.1, 0.47), (0.46, 1.1))),
        ("hole", ((0.54, 0.47), (0.9, 1.1))),
    ),
    "butterflies": (
        ("disc", ((0.05, 0.1), (0.47, 0.52))),
        ("disc", ((0.53, 0.1), (0.95, 0.52))),
        ("disc", ((0.14, 0.5), (0.47, 0.85))),
        ("disc", ((0.53, 0.5), (0.86, 0.85))),
        ("line", ((0.5, 0.15), (0.5, 0.85))),
    ),
    "crowns": (
        ("fill", ((0.08, 0.85), (0.08, 0.25), (0.3, 0.55), (0.5, 0.15), (0.7, 0.55), (0.92, 0.25), (0.92, 0.85))),
        ("hole", _round(0.5, 0.68, 0.07)),
    ),
    "cups": (
        ("fill", ((0.15, 0.2), (0.7, 0.2), (0.62, 0.85), (0.23, 0.85))),
        ("line", ((0.68, 0.32), (0.92, 0.35), (0.9, 0.58), (0.65, 0.62))),
    ),
    "eyes": (
        ("fill", ((0.02, 0.5), (0.25, 0.3), (0.5, 0.24), (0.75, 0.3), (0.98, 0.5))),
        ("fill", ((0.02, 0.5), (0.25, 0.7), (0.5, 0.76), (0.75, 0.7), (0.98, 0.5))),
        ("hole", _round(0.5, 0.5, 0.2)),
        ("disc", _round(0.5, 0.5, 0.1)),
    ),
    "fish": (
        ("disc", ((0.05, 0.28), (0.72, 0.72))),
        ("fill", ((0.62, 0.5), (0.97, 0.22), (0.97, 0.78))),
        ("hole", _round(0.2, 0.45, 0.05)),
    ),
    "flowers": (
        *(("disc", _round(x, y, 0.17)) for x, y in _turn(6, 0.29)),
        ("hole", _round(0.5, 0.5, 0.13)),
    ),
    "hearts": (
        ("disc", ((0.06, 0.14), (0.54, 0.58))),
        ("disc", ((0.46, 0.14), (0.94, 0.58))),
        ("fill", ((0.1, 0.47), (0.9, 0.47), (0.5, 0.93))),
    ),
    "houses": (
        ("fill", ((0.5, 0.08), (0.95, 0.45), (0.05, 0.45))),
        ("fill", ((0.15, 0.45), (0.85, 0.45), (0.85, 0.92), (0.15, 0.92))),
        ("hole", ((0.4, 0.58), (0.6, 1.1))),
    ),
    "keys": (
        ("disc", _round(0.24, 0.5, 0.21)),
        ("hole", _round(0.24, 0.5, 0.1)),
        ("line", ((0.4, 0.5), (0.95, 0.5), (0.95, 0.7))),
        ("line", ((0.77, 0.5), (0.77, 0.66))),
    ),
    "ladders": (
        ("line", ((0.28, 0.03), (0.28, 0.97))),
        ("line", ((0.72, 0.03), (0.72, 0.97))),
        *(("line", ((0.28, y), (0.72, y))) for y in (0.2, 0.4, 0.6, 0.8)),
    ),
    "leaves": (
        ("fill", ((0.5, 0.03), (0.72, 0.25), (0.76, 0.5), (0.66, 0.72), (0.5, 0.84))),
        ("fill", ((0.5, 0.03), (0.28, 0.25), (0.24, 0.5), (0.34, 0.72), (0.5, 0.84))),
        ("line", ((0.5, 0.8), (0.5, 0.98))),
    ),
    "moons": (("disc", _round(0.5, 0.5, 0.44)), ("hole", _round(0.68, 0.42, 0.36))),
    "mountains": (("fill", ((0.02, 0.85), (0.35, 0.15), (0.52, 0.5), (0.68, 0.3), (0.98, 0.85))),),
    "snakes": (("line", _wave(24)), ("disc", _round(0.93, 0.5, 0.09))),
    "stars": (("fill", _star()),),
    "suns": (
        ("disc", _round(0.5, 0.5, 0.24)),
        *(("line", (inner, outer)) for inner, outer in zip(_turn(8, 0.32), _turn(8, 0.47), strict=True)),
    ),
    "swords": (
        ("fill", ((0.45, 0.66), (0.45, 0.1), (0.5, 0.02), (0.55, 0.1), (0.55, 0.66))),
        ("line", ((0.28, 0.68), (0.72, 0.68))),
        ("line", ((0.5, 0.68), (0.5, 0.95))),
    ),
    "towers": (
        ("fill", ((0.32, 0.97), (0.36, 0.3), (0.64, 0.3), (0.68, 0.97))),
        *(("fill", ((x, 0.3), (x, 0.12), (x + 0.12, 0.12), (x + 0.12, 0.3))) for x in (0.28, 0.44, 0.6)),
        ("hole", ((0.44, 0.42), (0.56, 0.58))),
    ),
    "trees": (
        ("fill", ((0.5, 0.03), (0.75, 0.4), (0.25, 0.4))),
        ("fill", ((0.5, 0.25), (0.85, 0.75), (0.15, 0.75))),
        ("line", ((0.5, 0.75), (0.5, 0.97))),
    ),
    "vases": (
        ("fill", ((0.36, 0.05), (0.64, 0.05), (0.58, 0.2), (0.42, 0.2))),
        ("disc", ((0.2, 0.18), (0.8, 0.8))),
        ("fill", ((0.38, 0.76), (0.62, 0.76), (0.68, 0.95), (0.32, 0.95))),
    ),
    "wheels": (
        ("disc", _round(0.5, 0.5, 0.46)),
        ("hole", _round(0.5, 0.5, 0.34)),
        *(("line", (start, end)) for start, end in zip(_turn(6, 0.4)[:3], _turn(6, 0.4)[3:], strict=True)),
    ),
}  # fmt: skip


def draw_shape(name: str, size: int, degrees: float) -> Image.Image:
    """Draw the mask of a shape, rotated by `degrees`; mode L, size x size."""
    side = size * DETAIL
    mask = Image.new("L", (side, side))
    pencil = ImageDraw.Draw(mask)
    for kind, points in SHAPES[name]:
        scaled = [(x * side, y * side) for x, y in points]
        if kind == "fill":
            pencil.polygon(scaled, 255)
        elif kind == "line":
            pencil.line(scaled, 255, max(2, round(LINE_WIDTH * side)), joint="curve")
        else:
            pencil.ellipse((*scaled[0], *scaled[1]), 255 if kind == "disc" else 0)
    return mask.rotate(degrees, Image.Resampling.BILINEAR).resize((size, size), Image.Resampling.BOX)
