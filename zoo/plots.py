"""Size, style and encoding of the plots on all pages, without pyplot and its global state."""

import base64
import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

WIDTH = 11.25  # inches, 1080 px of the page
INK = "#333333"
GREY = "#999999"
# ColorBrewer's Dark2 without orange, the colour of the test set.
GROUP_COLOURS = ("#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#444444")


def make_grid(
    rows: int,
    columns: int,
    height: float,
    top: float,
    right: float = 0.1,
    between: float = 0.2,
    aside: float = 0.22,
) -> tuple[Figure, NDArray[Any]]:
    """Create a figure as wide as the page, and its axes, (rows, columns).

    In inches: `height` of a row, margins `top` and `right`, space `between` rows; `aside` is the space between columns
    relative to their width.
    """
    # matplotlib's own layout draws everything twice, which takes seconds per page.
    total = rows * height + (rows - 1) * between + top + 0.5
    figure = Figure(figsize=(WIDTH, total))
    figure.subplots_adjust(0.7 / WIDTH, 0.5 / total, 1 - right / WIDTH, 1 - top / total, aside, between / height)
    return figure, figure.subplots(rows, columns, squeeze=False)


def style_axes(axes: Axes) -> None:
    """Draw only the left and lower axis, in grey with small numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=8, color=GREY, labelcolor=INK)


def format_number(number: float, _: int | None = None) -> str:
    """Return a whole number with commas; also a tick formatter, which ignores the position."""
    return f"{number:,.0f}"


def encode_figure(figure: Figure) -> str:
    """Return the figure as an SVG in a data URL; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # Ids in the file are hashes, which differ between runs without a fixed salt.
    with matplotlib.rc_context({"svg.hashsalt": "vitrine"}):
        figure.savefig(buffer, format="svg", dpi=192, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def choose_colours(number: int) -> list[str]:
    """Return `number` colours of groups; GROUP_COLOURS repeat if there are more."""
    return [GROUP_COLOURS[place % len(GROUP_COLOURS)] for place in range(number)]
