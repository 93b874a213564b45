"""The plots on the page of `explore`, each an SVG in a data URL."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from training.pages.explore_figures import ImageFolder, LabelCount
from zoo.plots import GREY, GROUP_COLOURS, INK, encode_figure, format_number, make_grid, style_axes

PART_COLOURS = {"train": "#2f6fa8", "test": "#e2711d"}
PART_TINTS = {"train": ("#a9c9e6", "#0b2f52"), "test": ("#f7c79f", "#7a3205")}
FIGURES = ("mean", "deviation", "minimum", "maximum")
RATIO_TICKS = (1, 1.5, 2, 3, 5, 10, 20, 50, 100)
BINS = 48
MOST_BARS = 40
LONGEST_NAME = 28
Values = NDArray[Any]


def plot_colours(parts: Sequence[ImageFolder], channels: Sequence[str], first: int) -> str:
    """Plot the distributions over images: one row per channel, one column per figure.

    `first`: index of the first channel in `ImageFolder.colours`.
    """
    figure, grid = make_grid(len(channels), len(FIGURES), 1.5, 0.55)
    edges = np.linspace(0, 256, 33)
    for row, channel in enumerate(channels):
        for column, name in enumerate(FIGURES):
            axes = grid[row, column]
            _draw_shares(axes, edges, {part.name: part.colours[:, first + row, column] for part in parts})
            axes.set_xlim(0, 256)
            axes.set_xticks([0, 64, 128, 192, 255])
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(labelbottom=row == len(channels) - 1)
            if row == 0:
                axes.set_title(name, fontsize=10, color=INK)
        grid[row, 0].set_ylabel(f"{channel}\n% of images", fontsize=9)
    _add_legend(figure, parts, "upper right")
    return encode_figure(figure)


def plot_sizes(parts: Sequence[ImageFolder]) -> str:
    """Plot height by width for each part (darker: more images), and the distributions of width and height."""
    widths = {part.name: part.sizes[:, 0] for part in parts}
    heights = {part.name: part.sizes[:, 1] for part in parts}
    extent = (*_pad_range(widths), *_pad_range(heights))
    shape = (2, 2) if len(parts) > 1 else (1, 3)
    figure, grid = make_grid(*shape, 2.8, 0.3, between=0.75, aside=0.3)
    for part, axes in zip(parts, grid.flat, strict=False):
        cells = axes.hexbin(
            widths[part.name],
            heights[part.name],
            gridsize=(44, 22),
            bins="log",
            mincnt=1,
            xscale="log" if _is_wide(widths) else "linear",
            yscale="log" if _is_wide(heights) else "linear",
            extent=extent,
            # Starts with a visible tint, so that a cell of one image can be seen.
            cmap=LinearSegmentedColormap.from_list(part.name, [*PART_TINTS[part.name]]),
            linewidths=0.2,
        )
        bar = figure.colorbar(cells, ax=axes, fraction=0.05, pad=0.02, aspect=30)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, color=GREY, labelcolor=INK)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(format_number))
        _scale_axis(axes, "x", widths)
        _scale_axis(axes, "y", heights)
        axes.set_title(f"{part.name}: images of each size", fontsize=10, color=INK)
        axes.set_xlabel("width, px", fontsize=9)
        axes.set_ylabel("height, px", fontsize=9)
        style_axes(axes)
    for axes, name, samples in zip(grid.ravel()[-2:], ("width", "height"), (widths, heights), strict=True):
        _draw_shares(axes, _choose_edges(samples), samples)
        _scale_axis(axes, "x", samples)
        axes.set_xlabel(f"{name}, px", fontsize=9)
        axes.set_ylabel("% of images", fontsize=9)
    _add_legend(axes, parts, "lower right")
    return encode_figure(figure)


def plot_ratios(parts: Sequence[ImageFolder]) -> str:
    """Plot the distribution of width / height on a log scale: tall images left, wide images right."""
    figure, ((axes,),) = make_grid(1, 1, 2.3, 0.3)
    longest = max(1.2, *(float(part.lengths.max()) for part in parts)) * 1.02
    # With an odd number of bins, 1:1 is the centre of a bin.
    _draw_shares(axes, np.geomspace(1 / longest, longest, 62), {part.name: part.ratios for part in parts})
    axes.set_xscale("log")
    axes.set_xlim(1 / longest, longest)
    ticks = [tick for tick in RATIO_TICKS if tick < longest]
    axes.xaxis.set_major_locator(FixedLocator([1 / tick for tick in ticks[:0:-1]] + ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda ratio, _: f"{ratio:.3g}:1" if ratio >= 1 else f"1:{1 / ratio:.3g}")
    )
    axes.set_xlabel("width : height", fontsize=9)
    axes.set_ylabel("% of images", fontsize=9)
    _add_legend(axes, parts, "lower right")
    return encode_figure(figure)


def plot_counts(counts: Sequence[LabelCount], colours: Mapping[str, str], bounds: Sequence[int]) -> str:
    """Plot the images per label on a log scale, the labels of each group sorted by frequency."""
    figure, ((axes,),) = make_grid(1, 1, 3.8, 0.1, right=0.55)
    for group, colour in colours.items():
        images = np.sort([count.images for count in counts if count.group == group and count.images])[::-1]
        axes.plot(
            np.arange(1, len(images) + 1),
            images,
            color=colour,
            linewidth=2,
            marker="o" if len(images) <= 60 else None,
            markersize=4,
            label=_escape(group),
        )
    axes.set_yscale("log")
    most = max(count.images for count in counts)
    axes.set_ylim(0.8, max(2, most) * 1.4)
    axes.yaxis.set_major_formatter(FuncFormatter(format_number))
    for bound in bounds:
        if bound < most * 1.4:
            axes.axhline(bound, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            axes.annotate(
                f"{bound:,}",
                (1, bound),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                color="#777777",
                va="center",
            )
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:,.0f}" if rank else ""))
    axes.set_xlabel("rank of the label in its group", fontsize=9)
    axes.set_ylabel("images", fontsize=9)
    if len(colours) > 1:
        axes.legend(fontsize=9, frameon=False, loc="upper right")
    style_axes(axes)
    return encode_figure(figure)


def plot_lengths(lengths: Mapping[str, NDArray[np.int64]], colours: Mapping[str, str]) -> str:
    """Plot the distribution of labels per image, of all groups and of each."""
    columns = min(3, len(lengths))
    rows = -(-len(lengths) // columns)
    figure, grid = make_grid(rows, columns, 2.0, 0.3, between=0.75)
    for axes, (group, numbers) in zip(grid.flat, lengths.items(), strict=False):
        shares = 100 * np.bincount(numbers) / len(numbers)
        axes.bar(np.arange(len(shares)), shares, 0.86, color=colours.get(group, "#555555"))
        axes.set_xlim(-0.7, max(len(shares), 3) - 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(group, fontsize=10, color=INK, parse_math=False)
        axes.set_xlabel("labels per image", fontsize=9)
        axes.set_ylabel("% of images", fontsize=9)
        style_axes(axes)
    for axes in grid.ravel()[len(lengths) :]:
        axes.remove()
    return encode_figure(figure)


def plot_shares(counts: Sequence[LabelCount]) -> str:
    """Plot the share of each label among all images, the MOST_BARS largest."""
    ranked = sorted(counts, key=lambda count: -count.share)[:MOST_BARS]
    figure, ((axes,),) = make_grid(1, 1, 0.3 + 0.22 * len(ranked), 0.1)
    figure.subplots_adjust(left=0.22)
    places = np.arange(len(ranked))
    axes.barh(places, [100 * count.share for count in ranked], 0.8, color=GROUP_COLOURS[0])
    axes.set_yticks(places, [_escape(shorten_text(count.name)) for count in ranked])
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlabel("share of the images, %", fontsize=9)
    style_axes(axes)
    return encode_figure(figure)


def plot_values(values: NDArray[np.float64], name: str) -> str:
    """Plot the distribution of the numbers of a regression, (images,)."""
    figure, ((axes,),) = make_grid(1, 1, 2.6, 0.1)
    whole = values.round()
    edges = _choose_edges({name: whole}) if np.allclose(values, whole, rtol=0, atol=1e-4) else BINS
    shares, edges = np.histogram(values, edges)
    axes.stairs(100 * shares / len(values), edges, fill=True, color=GROUP_COLOURS[0], alpha=0.8)
    axes.axvline(float(values.mean()), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        "mean",
        (float(values.mean()), 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -8),
        textcoords="offset points",
        fontsize=8,
        color=INK,
    )
    axes.set_xlabel(_escape(name), fontsize=9)
    axes.set_ylabel("% of images", fontsize=9)
    style_axes(axes)
    return encode_figure(figure)


def _draw_shares(axes: Axes, edges: Values, samples: Mapping[str, Values]) -> None:
    # Shares, not counts: train and test differ in size.
    for name, values in samples.items():
        shares = 100 * np.histogram(values, edges)[0] / len(values)
        filled = name == "train"
        axes.stairs(
            shares,
            edges,
            fill=filled,
            color=PART_COLOURS[name],
            alpha=0.45 if filled else 1,
            linewidth=0 if filled else 1.6,
        )
    style_axes(axes)


def _choose_edges(samples: Mapping[str, Values]) -> Values:
    # Edges lie between whole pixels: with narrower bins, some would be empty and look like gaps in the data.
    least, most = _find_range(samples)
    if least > 0 and _is_wide(samples):
        return np.unique(np.geomspace(least, most + 1, BINS + 1).round()) - 0.5
    step = max(1, -(-(most + 1 - least) // BINS))
    return np.arange(least, most + 1 + step, step) - 0.5


def _scale_axis(axes: Axes, side: str, samples: Mapping[str, Values]) -> None:
    axis = axes.xaxis if side == "x" else axes.yaxis
    if _is_wide(samples):
        (axes.set_xscale if side == "x" else axes.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(integer=True))
    axis.set_major_formatter(FuncFormatter(format_number))


def _pad_range(samples: Mapping[str, Values]) -> tuple[float, float]:
    # hexbin needs exponents on a log scale, and a range of width above 0.
    least, most = _find_range(samples)
    ends = np.array([least - 0.5, most + 0.5])
    low, high = np.log10(ends) if _is_wide(samples) else ends
    return float(low), float(high)


def _find_range(samples: Mapping[str, Values]) -> tuple[int, int]:
    values = np.concatenate(list(samples.values()))
    return int(values.min()), int(values.max())


def _is_wide(samples: Mapping[str, Values]) -> bool:
    least, most = _find_range(samples)
    return most >= 8 * least


def _add_legend(
    target: Figure | Axes, parts: Sequence[ImageFolder], place: Literal["upper right", "lower right"]
) -> None:
    if len(parts) > 1:
        handles: list[Artist] = [
            Patch(color=PART_COLOURS["train"], alpha=0.45, linewidth=0, label="train"),
            Line2D([], [], color=PART_COLOURS["test"], linewidth=1.6, label="test"),
        ]
        target.legend(
            handles=handles, bbox_to_anchor=(1, 1), loc=place, ncols=2, fontsize=9, frameon=False, borderaxespad=0.1
        )


def shorten_text(text: str) -> str:
    """Return at most LONGEST_NAME characters."""
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def _escape(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would parse a formula
