"""The figures of the command slices."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zoo.metrics.scoring import Scoring, Summary

Figures = Mapping[str, float | None]
"""The metric by kind of labels, 'all' or a group; None if no image counts or the metric is undefined."""


@dataclass(frozen=True)
class ModelFigures:
    """A row of the first table: a member, that is the networks of one recipe, or the blend."""

    model: str
    group: str
    image_size: int | tuple[int, ...] | None
    """As in the manifest; None for the blend."""
    images: int
    """Held out; `same_images`: they are those of the blend."""
    same_images: bool
    figures: Figures


@dataclass(frozen=True)
class ShapeFigures:
    """The blend on the images of one shape."""

    shape: str
    images: int
    figures: Figures


@dataclass(frozen=True)
class LabelFigures:
    """The blend on some labels only; a figure is None if its denominator is 0."""

    label: str
    labels: int
    images: int
    """With one of the labels."""
    true: int
    """Pairs of image and label; `taken`: predicted pairs; `recall` and `precision`: of these (micro-averaged)."""
    taken: int | None
    """None if no labels are selected, only probabilities given."""
    recall: float | None
    precision: float | None
    figure: float | None
    """The metric."""


@dataclass(frozen=True)
class ValueFigures:
    """The blend on the images whose true number lies in a range; all in the competition's units."""

    values: str
    images: int
    bias: float | None
    """Mean of predicted minus true."""
    error: float | None
    """Mean absolute difference."""
    figure: float | None
    """The metric."""


@dataclass(frozen=True)
class Confusion:
    """Images of one class that got another."""

    true: str
    predicted: str
    images: int
    share: float
    """Of the images of the true class."""


@dataclass(frozen=True)
class Slices:
    """All figures of the command; a list that does not suit the task is empty."""

    metric: str
    models: list[ModelFigures]
    shapes: list[ShapeFigures]
    frequencies: list[LabelFigures]
    groups: list[LabelFigures]
    values: list[ValueFigures]
    confusions: list[Confusion]


@dataclass(frozen=True)
class Judged:
    """The summary of the images that count for a kind of labels."""

    scoring: Scoring
    rows: NDArray[np.int64]
    """Ascending, among the images of the pool."""
    summary: Summary
    """Of these rows."""

    def score(self, kept: NDArray[np.bool_] | None = None) -> float | None:
        """Return the metric on the images of `kept`, (images of the pool,), or on all; None if it has no value."""
        summary = self.summary if kept is None else self.summary[kept[self.rows]]
        return finish(self.scoring.total(summary)) if len(summary) else None


def finish(figure: float) -> float | None:
    """Return the figure; None if it is not finite."""
    return figure if math.isfinite(figure) else None


def divide(total: float, number: int) -> float | None:
    """Return the quotient, or None if `number` is 0."""
    return total / number if number else None


def name_steps(bounds: Sequence[float]) -> list[str]:
    """Name the ranges between bounds; each includes its lower bound."""
    steps = [f"{low:g} to below {high:g}" if low else f"below {high:g}" for low, high in pairwise(bounds)]
    return [*steps, f"{bounds[-1]:g} and above"]
