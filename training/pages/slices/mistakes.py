"""Mistakes of the blend: classes taken for others, and predicted against true numbers."""

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.task import Task
from training.pages.slices.figures import Confusion
from zoo.metrics.selection import choose_classes
from zoo.plots import GREY, GROUP_COLOURS, INK, encode_figure, make_grid, style_axes

LISTED_PAIRS = 20
MOST_CLASSES = 50
"""Largest number of classes of a heat map that can still be read."""
NAMED_CELLS = 25
"""Largest number of classes for which each cell of the heat map has its number."""
LONGEST_NAME = 26
FEW_POINTS = 3000


def count_confusions(answers: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.int64]:
    """Count the images by true and predicted class, (classes, classes); `answers`, `truth`: (images, classes)."""
    size = truth.shape[1]
    pairs = choose_classes(truth) * size + choose_classes(answers)
    return np.bincount(pairs, minlength=size**2).reshape(size, size)


def list_confusions(counts: NDArray[np.int64], labels: Labels) -> list[Confusion]:
    """List the pairs of classes with the most mistakes, at most LISTED_PAIRS; `counts`: of count_confusions."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED_PAIRS]
    return [
        Confusion(
            labels.names[true], labels.names[other], int(wrong[true, other]), float(wrong[true, other] / row.sum())
        )
        for true, other in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[true, other] and (row := counts[true]).any()
    ]


def plot_confusions(counts: NDArray[np.int64], labels: Labels) -> str | None:
    """Plot the confusion matrix, the share of each true class's images; None if there are too many classes."""
    size = len(counts)
    if size > MOST_CLASSES:
        return None
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_shorten(name) for name in labels.names]
    side, space = size * min(0.6, 7.6 / size), 0.5 + 0.075 * max(map(len, names))  # inches
    figure, ((axes,),) = make_grid(1, 1, side + space - 0.5, 0.1)
    wide, high = figure.get_size_inches()
    axes.set_position((space / wide, 1 - (side + 0.1) / high, side / wide, side / high))
    colours = LinearSegmentedColormap.from_list("shares", ["#f6f6f6", "#9dbcd9", "#143c6e"])
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
    if size <= NAMED_CELLS:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.5 else INK
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    small = 8 if size <= NAMED_CELLS else 6
    axes.set_xticks(range(size), names, rotation=90, fontsize=small, parse_math=False)
    axes.set_yticks(range(size), names, fontsize=small, parse_math=False)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("true class", fontsize=9)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=INK)
    return encode_figure(figure)


def plot_values(answers: NDArray[Any], truth: NDArray[Any], task: Task, name: str) -> str:
    """Plot predicted against true numbers, in the competition's units; `answers`, `truth`: (images, 1), range units."""
    low, high = task.value_range
    true, found = (low + (high - low) * part[:, 0].astype(np.float64) for part in (truth, answers))
    figure, ((axes, errors),) = make_grid(1, 2, 4.4, 0.3, aside=0.25)
    ends = (min(true.min(), found.min()), max(true.max(), found.max()))
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    if len(true) <= FEW_POINTS:
        axes.scatter(true, found, s=9, color=GROUP_COLOURS[0], alpha=0.5, linewidths=0)
    else:
        colours = LinearSegmentedColormap.from_list("images", ["#a9d9c9", "#0b4f3a"])
        axes.hexbin(true, found, gridsize=48, bins="log", mincnt=1, cmap=colours, linewidths=0.2)
    axes.set_xlabel(f"true {name}", fontsize=9, parse_math=False)
    axes.set_ylabel(f"predicted {name}", fontsize=9, parse_math=False)
    axes.set_title("dashed: predicted = true", fontsize=9, color=INK)
    errors.hist(found - true, int(np.clip(np.sqrt(len(true)), 10, 48)), color=GROUP_COLOURS[0], alpha=0.8)
    errors.axvline(0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    errors.set_xlabel("predicted - true", fontsize=9)
    errors.set_ylabel("images", fontsize=9)
    style_axes(axes)
    style_axes(errors)
    return encode_figure(figure)


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
