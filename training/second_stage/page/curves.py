"""The plots of the page, each an SVG in a data URL."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from training.second_stage.calibration import Reliability
from training.second_stage.findings import FrequencySlice, ThresholdCurve
from zoo.plots import GREY, INK, encode_figure, format_number, make_grid, style_axes

TICKS = (0, 0.01, 0.04, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1)
# The first is for the weighted average, the reference.
METHOD_COLOURS = ("#b9c2cb", "#2f6fa8", "#e2711d", "#1b9e77", "#7570b3")
MOST_FIGURES = 12  # more bars leave no room for a value over each


def choose_method_colours(methods: Sequence[str]) -> dict[str, str]:
    """Assign METHOD_COLOURS to the methods, in a cycle."""
    return {method: METHOD_COLOURS[place % len(METHOD_COLOURS)] for place, method in enumerate(methods)}


def plot_thresholds(curves: Mapping[str, ThresholdCurve], colours: Mapping[str, str], metric: str) -> str:
    """Plot the metric of each group's labels by threshold, with a point at the chosen threshold."""
    figure, ((axes,),) = make_grid(1, 1, 3.4, 0.15)
    for group, curve in curves.items():
        colour = colours[group]
        height = float(np.interp(curve.chosen, curve.thresholds, curve.scores))
        axes.plot(curve.thresholds, curve.scores, color=colour, linewidth=2)
        axes.vlines(curve.chosen, 0, height, color=colour, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(curve.chosen, height, "o", color=colour, markersize=8, markeredgecolor="white", zorder=3)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.arange(0, 1.01, 0.1))
    axes.set_ylim(0, _round_up(max(max(curve.scores) for curve in curves.values())))
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.set_xlabel("threshold", fontsize=9)
    axes.set_ylabel(f"{metric} of the group's labels", fontsize=9)
    style_axes(axes)
    return encode_figure(figure)


def plot_reliability(groups: Mapping[str, Reliability], colours: Mapping[str, str]) -> str:
    """Plot the share of true pairs (left) and the number of pairs (right) by probability, one point per bin."""
    figure, ((truth, pairs),) = make_grid(1, 2, 4.2, 0.35)
    truth.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    for group, held in groups.items():
        look = {"color": colours[group], "marker": "o", "markersize": 5, "clip_on": False}
        truth.plot(held.chances, held.frequencies, linewidth=1.4, **look)
        pairs.plot(held.chances, held.counts, linewidth=1.4, **look)
    for axes in (truth, pairs):
        _scale_root(axes, "x")
        axes.set_xlabel("probability, mean of the bin", fontsize=9)
        axes.grid(color="#eeeeee")
        axes.set_axisbelow(True)
        style_axes(axes)
    _scale_root(truth, "y")
    pairs.set_yscale("log")
    pairs.set_ylim(0.8, 2 * max(held.counts.max() for held in groups.values()))
    pairs.yaxis.set_major_locator(LogLocator(numticks=12))
    pairs.yaxis.set_minor_locator(NullLocator())
    pairs.yaxis.set_major_formatter(FuncFormatter(format_number))
    truth.set_title("share of true pairs", fontsize=10, color=INK)
    pairs.set_title("pairs of image and label", fontsize=10, color=INK)
    return encode_figure(figure)


def plot_slices(slices: Sequence[FrequencySlice], colours: Mapping[str, str], metric: str) -> str:
    """Plot the metric of labels by frequency, one bar per method; `colours`: of each method of `slices`."""
    figure, ((axes,),) = make_grid(1, 1, 3.0, 0.1)
    width = 0.8 / len(colours)
    for place, (method, colour) in enumerate(colours.items()):
        places = np.arange(len(slices)) + (place - (len(colours) - 1) / 2) * width
        bars = axes.bar(places, [one.scores.get(method, np.nan) for one in slices], width * 0.94, color=colour)
        if len(colours) * len(slices) <= MOST_FIGURES:
            axes.bar_label(bars, fmt="%.3f", fontsize=8, color=INK, padding=2)
    axes.set_xlim(-0.6, max(len(slices), 3) - 0.4)
    axes.set_xticks(
        range(len(slices)),
        [f"{one.name} images\n{one.labels:,} label{'s' if one.labels > 1 else ''}" for one in slices],
    )
    axes.set_ylim(0, _round_up(max(max(one.scores.values(), default=0) for one in slices)))
    axes.set_ylabel(f"{metric} of all pairs", fontsize=9)
    style_axes(axes)
    axes.tick_params(axis="x", labelsize=9, length=0)
    return encode_figure(figure)


def _round_up(highest: float) -> float:
    # Leaves room for a value above the highest bar.
    return min(1.08, max(0.1, highest * 1.12))


def _scale_root(axes: Axes, side: str) -> None:
    # Most probabilities are small, and a log scale cannot show 0.
    functions = (lambda value: np.sqrt(np.maximum(value, 0)), np.square)
    (axes.set_xscale if side == "x" else axes.set_yscale)("function", functions=functions)
    (axes.set_xlim if side == "x" else axes.set_ylim)(0, 1)
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(TICKS))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
