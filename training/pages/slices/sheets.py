"""The tables of the command slices, as text cells."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.pages.slices.figures import Figures, Slices
from zoo.text import align_columns

CROSSED = "Each half of the images is decided by rules fitted to the other half."


@dataclass(frozen=True)
class Sheet:
    """A table."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: int
    """The number of columns of text; the others are numbers."""
    before: tuple[str, ...] = ()
    """Notes between the title and the table."""
    after: tuple[str, ...] = ()


def list_sheets(slices: Slices, faults: Sequence[str]) -> list[Sheet]:
    """Return the tables that are not empty; `faults`: why the shape of an image is unknown."""
    labels = [
        list_labels(slices, "The blend by label frequency", "images in train.csv"),
        list_labels(slices, "The blend by group", "group"),
    ]
    sheets = [list_models(slices), list_shapes(slices, faults), *labels, list_values(slices), list_pairs(slices)]
    return [sheet for sheet in sheets if sheet.rows]


def list_models(slices: Slices) -> Sheet:
    """Return the table of models and the blend."""
    kinds = list(slices.models[-1].figures)
    rows = [
        (
            one.model,
            one.group,
            show_size(one.image_size),
            f"{one.images}{'' if one.same_images else '*'}",
            *show_kinds(one.figures, kinds),
        )
        for one in slices.models
    ]
    grouped = "A group's column: only images with a label of the group, with rules for the group alone."
    other = ("* on other images than the blend, so not comparable with it",)
    return Sheet(
        f"{slices.metric[0].upper()}{slices.metric[1:]} by model",
        ("model", "group", "px", "images", *name_kinds(slices)),
        rows,
        2,
        (CROSSED, grouped) if len(kinds) > 1 else (CROSSED,),
        () if all(one.same_images for one in slices.models) else other,
    )


def show_size(size: int | tuple[int, ...] | None) -> str:
    """Return the size of a model's input as a cell: 320, or 240x320 (height, width)."""
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size or "")


def list_shapes(slices: Slices, faults: Sequence[str]) -> Sheet:
    """Return the table of the blend by aspect ratio."""
    kinds, whole = list(slices.models[-1].figures), slices.models[-1].images
    rows = [
        (one.shape, str(one.images), f"{one.images / whole:.1%}", *show_kinds(one.figures, kinds))
        for one in slices.shapes
    ]
    more = f" and {len(faults) - 1} more" if faults[1:] else ""
    return Sheet(
        "The blend by aspect ratio of the image (long side / short side)",
        ("shape", "images", "share", *name_kinds(slices)),
        rows,
        1,
        after=(f"unknown: {faults[0]}{more}",) if faults else (),
    )


def list_labels(slices: Slices, title: str, name: str) -> Sheet:
    """Return a table of the blend by some labels."""
    rows = [
        (
            one.label,
            *map(str, (one.labels, one.images, one.true)),
            "-" if one.taken is None else str(one.taken),
            *map(show, (one.recall, one.precision, one.figure)),
        )
        for one in (slices.groups if name == "group" else slices.frequencies)
    ]
    header = (name, "labels", "images", "true", "predicted", "recall", "precision", slices.metric)
    note = (
        "Only the labels of the row count, with the rules for all labels; true, predicted, recall and precision count",
        f"pairs of image and label. {slices.metric}, if a mean over images, is of the images with such a label.",
    )
    return Sheet(title, header, rows, 1, after=note)


def list_values(slices: Slices) -> Sheet:
    """Return the table of the blend by true number."""
    rows = [(one.values, str(one.images), *map(show, (one.bias, one.error, one.figure))) for one in slices.values]
    header = ("true number", "images", "mean of predicted - true", "mean difference", slices.metric)
    return Sheet("The blend by quarters of the true numbers", header, rows, 1)


def list_pairs(slices: Slices) -> Sheet:
    """Return the table of the most confused classes."""
    rows = [(one.true, one.predicted, str(one.images), f"{one.share:.1%}") for one in slices.confusions]
    return Sheet("The most confused classes", ("true", "predicted", "images", "share of the true class"), rows, 2)


def format_sheets(sheets: Sequence[Sheet]) -> str:
    """Return all tables as text."""
    lines: list[str] = []
    for sheet in sheets:
        table = align_columns([sheet.header, *sheet.rows], sheet.left)
        lines += ["", sheet.title, *sheet.before, "", *table, *sheet.after]
    return "\n".join(lines[1:])


def name_kinds(slices: Slices) -> tuple[str, ...]:
    """Return the headers of the metric's columns: the kinds of labels, or the metric if there is one kind."""
    kinds = tuple(slices.models[-1].figures)
    return kinds if len(kinds) > 1 else (slices.metric,)


def show_kinds(figures: Figures, kinds: Sequence[str]) -> tuple[str, ...]:
    """Format one cell per kind of labels."""
    return tuple(show(figures.get(kind)) for kind in kinds)


def show(figure: float | None) -> str:
    """Format a figure with four digits; None as a dash."""
    return "-" if figure is None else f"{figure:.4f}"
