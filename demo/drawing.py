"""Images of exhibits: the palette and ornament of a culture, and one shape per tag."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from demo.collection import CULTURES, Exhibit, make_random
from demo.shapes import draw_shape

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Style:
    """Colours and ornament of a culture."""

    ground: Colour
    inks: tuple[Colour, Colour, Colour]
    ornament: str
    """Pattern of the border."""


# Each palette has two cultures, which differ in their ornament only.
PALETTES: tuple[tuple[Colour, tuple[Colour, Colour, Colour]], ...] = (
    ((206, 150, 98), ((110, 38, 22), (38, 32, 30), (240, 220, 180))),
    ((60, 74, 112), ((222, 186, 84), (226, 226, 214), (150, 48, 56))),
    ((198, 190, 160), ((32, 84, 66), (130, 42, 40), (40, 50, 92))),
    ((120, 52, 48), ((236, 202, 140), (28, 26, 32), (214, 120, 66))),
    ((92, 128, 116), ((240, 236, 220), (44, 36, 52), (224, 160, 72))),
)
ORNAMENTS_IN_ORDER = (
    *("steps", "dots", "waves", "zigzag", "meander"),
    *("stripes", "scales", "diamonds", "crosses", "triangles"),
)
STYLES: Mapping[str, Style] = {
    culture: Style(*PALETTES[index // 2], ornament)
    for index, (culture, ornament) in enumerate(zip(CULTURES, ORNAMENTS_IN_ORDER, strict=True))
}
PLAIN = Style((150, 146, 140), ((60, 58, 56), (224, 222, 216), (104, 92, 84)), "none")

BORDER = 0.13  # of the shorter side
SMALLEST, LARGEST = 0.32, 0.5  # of the shorter side
TILT = 18.0  # degrees
TRIES = 12  # random places per shape; the least covered place is used


def draw_exhibit(exhibit: Exhibit) -> Image.Image:
    """Draw the RGB image of an exhibit; deterministic."""
    random = make_random(exhibit.part, exhibit.index, "picture")
    styles = [STYLES[culture] for culture in exhibit.cultures] or [PLAIN]
    picture = _paint_ground(exhibit, styles, random)
    _draw_border(picture, styles, random)
    covered = np.zeros((exhibit.height, exhibit.width), bool)
    for tag in exhibit.tags:
        for _ in range(1 + int(random.random() < 0.25)):
            _place_thing(picture, tag, styles[int(random.integers(len(styles)))], covered, random)
    return _age(picture, random)


def _paint_ground(exhibit: Exhibit, styles: list[Style], random: np.random.Generator) -> Image.Image:
    shade = random.normal(0, 12, 3)
    ends = np.array([styles[0].ground, styles[-1].ground]) + shade
    share = np.linspace(0, 1, exhibit.height)[:, None, None]
    ground = ends[0] * (1 - share) + ends[1] * share
    pixels = np.broadcast_to(ground, (exhibit.height, exhibit.width, 3)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _draw_border(picture: Image.Image, styles: list[Style], random: np.random.Generator) -> None:
    width, height = picture.size
    cell = max(8, round(BORDER * min(width, height) * random.uniform(0.85, 1.15)))
    for edge, style in (("top", styles[0]), ("bottom", styles[-1])):
        ornament = ORNAMENTS.get(style.ornament)
        if ornament is None:
            continue
        band = Image.new("L", (cell * (width // cell + 2), cell))
        pencil = ImageDraw.Draw(band)
        for start in range(0, band.width, cell):
            ornament(pencil, start, cell)
        left = int(random.integers(cell))
        strip = band.crop((left, 0, left + width, cell))
        ink = _mix(style.inks[int(random.integers(2))], random)
        picture.paste(ink, (0, 0 if edge == "top" else height - cell), strip)


def _place_thing(
    picture: Image.Image, tag: str, style: Style, covered: NDArray[np.bool_], random: np.random.Generator
) -> None:
    width, height = picture.size
    short = min(width, height)
    size = round(short * random.uniform(SMALLEST, LARGEST))
    spots = [(int(random.integers(width - size + 1)), int(random.integers(height - size + 1))) for _ in range(TRIES)]
    left, top = min(spots, key=lambda spot: covered[spot[1] : spot[1] + size, spot[0] : spot[0] + size].mean())
    covered[top : top + size, left : left + size] = True
    mask = draw_shape(tag, size, random.uniform(-TILT, TILT))
    picture.paste(_mix(style.inks[int(random.integers(3))], random), (left, top), mask)


def _mix(ink: Colour, random: np.random.Generator) -> Colour:
    red, green, blue = (np.array(ink) + random.normal(0, 14, 3)).clip(0, 255).astype(int).tolist()
    return red, green, blue


def _age(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Add uneven light, grain and blur, as in photographs of old objects."""
    softened = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 1.1)))
    pixels = np.asarray(softened).astype(np.float32)
    height, width, _ = pixels.shape
    slope = random.uniform(-0.18, 0.18, 2)
    light = 1 + slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)[None, :]
    grain = random.normal(0, random.uniform(4, 11), (height, width)).astype(np.float32)
    aged = pixels * (light * random.uniform(0.85, 1.1)).astype(np.float32)[:, :, None] + grain[:, :, None]
    return Image.fromarray(aged.clip(0, 255).astype(np.uint8))


def _draw_steps(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    third = cell // 3
    for step in range(3):
        pencil.rectangle((x + step * third, cell - (step + 1) * third, x + cell - 1, cell - step * third), 255)


def _draw_dots(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    pencil.ellipse((x + cell // 5, cell // 5, x + 4 * cell // 5, 4 * cell // 5), 255)


def _draw_waves(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    for top in (0, cell // 2):
        pencil.arc((x, top, x + cell, top + cell // 2), 0, 180, 255, max(2, cell // 8))


def _draw_zigzag(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    pencil.line(((x, cell - 2), (x + cell // 2, 2), (x + cell, cell - 2)), 255, max(2, cell // 6))


def _draw_meander(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    far, near = cell - 3, cell // 3
    path = ((x, far), (x, 2), (x + far, 2), (x + far, far - 3), (x + near, far - 3), (x + near, cell // 2))
    pencil.line(path, 255, max(2, cell // 9))


def _draw_stripes(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    for start in range(0, cell, max(4, cell // 3)):
        pencil.rectangle((x + start, 0, x + start + max(1, cell // 8), cell), 255)


def _draw_scales(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    pencil.pieslice((x, -cell // 2, x + cell, cell // 2), 0, 180, 255)
    pencil.pieslice((x - cell // 2, cell // 3, x + cell // 2, cell), 0, 180, 255)


def _draw_diamonds(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    half = cell // 2
    pencil.polygon(((x + half, 1), (x + cell - 2, half), (x + half, cell - 2), (x + 1, half)), 255)


def _draw_crosses(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    bar = max(2, cell // 6)
    pencil.line(((x + cell // 5, cell // 5), (x + 4 * cell // 5, 4 * cell // 5)), 255, bar)
    pencil.line(((x + cell // 5, 4 * cell // 5), (x + 4 * cell // 5, cell // 5)), 255, bar)


def _draw_triangles(pencil: ImageDraw.ImageDraw, x: int, cell: int) -> None:
    pencil.polygon(((x, cell - 1), (x + cell // 2, 1), (x + cell - 1, cell - 1)), 255)


ORNAMENTS: Mapping[str, Callable[[ImageDraw.ImageDraw, int, int], None]] = {
    "steps": _draw_steps,
    "dots": _draw_dots,
    "waves": _draw_waves,
    "zigzag": _draw_zigzag,
    "meander": _draw_meander,
    "stripes": _draw_stripes,
    "scales": _draw_scales,
    "diamonds": _draw_diamonds,
    "crosses": _draw_crosses,
    "triangles": _draw_triangles,
}
