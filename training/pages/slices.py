"""Tables of F2: of each model and of the blend, by image shape, label frequency and group."""

import dataclasses
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.basics.files import replace_file
from inference.images.read import ORIENTATION_TAG
from inference.manifest.labels import Labels
from inference.manifest.records import ALL, Model, name_member
from inference.manifest.references import check_coverage
from training.data.pictures import find_pictures
from training.scoring.scores import score_kind
from training.scoring.thresholds import decide_crossed
from zoo.f2 import score_samples
from zoo.out_of_fold import PooledScores, Zoo, open_zoo, pool_blend, pool_models
from zoo.text import align_columns
from zoo.train_table import Table, read_table

LONG = 2.0
RATIO_BOUNDS = (1, 1.5, 2, 3)
RARITY_BOUNDS = (0, 20, 100, 1000)
# EXIF 2.3, table 6: orientations that swap width and height.
SIDEWAYS = (5, 6, 7, 8)
BLEND = "blend"


@dataclass(frozen=True)
class ModelFigures:
    """A row of the first table: the networks of one recipe, or the blend."""

    model: str
    group: str
    image_size: int | None
    images: int
    """Held out; `same_images`: they are those of the blend."""
    same_images: bool
    f2: dict[str, float | None]
    """By kind of labels, 'all' or a group; None if no image counts."""


@dataclass(frozen=True)
class ShapeFigures:
    """The blend on the images of one shape; `f2` as in ModelFigures."""

    shape: str
    images: int
    f2: dict[str, float | None]


@dataclass(frozen=True)
class LabelFigures:
    """The blend on some labels only; a figure is None if its denominator is 0."""

    label: str
    labels: int
    images: int
    """With one of the labels."""
    true: int
    """Pairs of image and label; `taken`: predicted pairs; `recall` and `precision`: of these (micro-averaged)."""
    taken: int
    recall: float | None
    precision: float | None
    f2: float | None
    """Mean over `images`."""


@dataclass(frozen=True)
class Slices:
    """All figures of the command."""

    models: list[ModelFigures]
    shapes: list[ShapeFigures]
    frequencies: list[LabelFigures]
    groups: list[LabelFigures]


def print_slices(train: Path, images: Path, manifest: Path, json_path: Path | None = None) -> None:
    """Print the F2 of each model and of the blend, and the blend's by image shape, label frequency and group.

    From out-of-fold predictions; each half of the images is decided by rules fitted to the other half. `json_path`:
    also write the figures there. Raises ManifestError, TableError, TrainingError or OutputError.
    """
    zoo = open_zoo(manifest)
    check_coverage(zoo.manifest)
    table = read_table(train, zoo.labels)
    blend = pool_blend(zoo, table)
    sizes, faults = measure_sizes(images, [table.ids[row] for row in blend.rows])
    truth = table.targets[blend.rows]
    predicted = decide_crossed(blend.scores, truth, zoo.labels)
    f2 = {kind: score_images(blend, table, zoo.labels, kind) for kind in blend.kinds(zoo.labels) if kind != ALL}
    f2 = {ALL: score_samples(predicted, truth), **f2}
    slices = Slices(
        [*measure_models(zoo, table, blend), ModelFigures(BLEND, ALL, None, len(truth), True, average_kinds(f2))],
        slice_shapes(sizes, f2),
        slice_frequencies(predicted, truth, table.targets.sum(axis=0)),
        [measure_labels(group, list(columns), predicted, truth) for group, columns in zoo.labels.groups.items()],
    )
    if json_path is not None:
        with replace_file(json_path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(slices), indent=2) + "\n", encoding="utf-8")
    print(describe_slices(slices, faults))


def measure_models(zoo: Zoo, table: Table, blend: PooledScores) -> list[ModelFigures]:
    """Measure each recipe of the manifest, over all its folds; without out-of-fold predictions, it has no F2."""
    from tqdm import tqdm

    recipes: dict[str, list[Model]] = {}
    for model in zoo.manifest.models:
        recipes.setdefault(name_member(model), []).append(model)
    found = []
    for name, models in tqdm(recipes.items(), "fitting rules", mininterval=1):
        shown = (name, models[0].group, models[0].image_size)
        held_out = [model for model in models if model.out_of_fold is not None]
        if not held_out:
            found.append(ModelFigures(*shown, 0, False, {}))
            continue
        pool = pool_models(zoo, table, held_out)
        f2 = {kind: score_images(pool, table, zoo.labels, kind) for kind in pool.kinds(zoo.labels)}
        same = np.array_equal(pool.rows, blend.rows)
        found.append(ModelFigures(*shown, len(pool.rows), same, average_kinds(f2)))
    return found


def score_images(pool: PooledScores, table: Table, labels: Labels, kind: str) -> NDArray[np.float64]:
    """Score each image with cross-fitted rules for one kind of labels, (images,); NaN without such a label."""
    truth = table.targets[pool.rows]
    f2 = np.full(len(truth), np.nan)
    f2[truth[:, labels.columns(kind)].any(axis=1) | (kind == ALL)] = score_kind(pool.scores, truth, labels, kind)
    return f2


def average_kinds(f2: dict[str, NDArray[np.float64]]) -> dict[str, float | None]:
    """Average over the images that count, by kind of labels."""
    return {kind: divide(float(np.nansum(part)), int(np.isfinite(part).sum())) for kind, part in f2.items()}


def measure_sizes(folder: Path, ids: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Read width and height of each upright image, (images, 2), from its header; (0, 0) and a reason if that fails.

    Raises TrainingError: the folder has none of the images.
    """
    paths = find_pictures(folder, ids, allow_missing=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # waits for many files at once
        found = list(pool.map(read_size, paths))
    faults = [
        f"{image}: no such image in {folder}" if path is None else f"{path.name}: unreadable header"
        for image, path, size in zip(ids, paths, found, strict=True)
        if size == (0, 0)
    ]
    return np.array(found, np.int64).reshape(-1, 2), faults


def read_size(path: Path | None) -> tuple[int, int]:
    """Read width and height of an upright image in px, without decoding it; (0, 0) if that fails."""
    if path is None:
        return 0, 0
    try:
        with Image.open(path) as image:
            # Not image.getexif(): for PNG it decodes all pixels, because EXIF may follow them.
            turned = Image.Image.getexif(image).get(ORIENTATION_TAG) in SIDEWAYS
            turned = turned and image.format != "TIFF"  # Pillow has already swapped its size
            return (image.height, image.width) if turned else image.size
    except Exception:  # many kinds of errors, see read_image
        return 0, 0


def slice_shapes(sizes: NDArray[np.int64], f2: dict[str, NDArray[np.float64]]) -> list[ShapeFigures]:
    """Average the blend's F2 by aspect ratio (long side / short side): below and above LONG, and in finer steps.

    `sizes`: (images, 2), width and height; `f2`: (images,) by kind of labels, NaN for images that do not count.
    """
    width, height = sizes.T
    known = width > 0
    ratios = sizes.max(axis=1) / np.maximum(sizes.min(axis=1), 1)
    long = known & (ratios >= LONG)
    shapes = {
        f"below {LONG:g}": known & ~long,
        f"{LONG:g} and above": long,
        f"{LONG:g} and above, wide": long & (width > height),
        f"{LONG:g} and above, high": long & (height > width),
    }
    steps = np.digitize(ratios, RATIO_BOUNDS)
    shapes |= {name: known & (steps == step) for step, name in enumerate(name_steps(RATIO_BOUNDS), 1)}
    shapes |= {} if known.all() else {"unknown": ~known}
    return [
        ShapeFigures(name, int(kept.sum()), average_kinds({kind: part[kept] for kind, part in f2.items()}))
        for name, kept in shapes.items()
    ]


def slice_frequencies(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], images: NDArray[np.int64]
) -> list[LabelFigures]:
    """Measure the blend by label frequency; `predicted`, `truth`: (images, labels); `images` per label: (labels,)."""
    steps = np.digitize(images, RARITY_BOUNDS)
    return [
        measure_labels(name, np.flatnonzero(steps == step).tolist(), predicted, truth)
        for step, name in enumerate(name_steps(RARITY_BOUNDS), 1)
    ]


def measure_labels(
    label: str, columns: list[int], predicted: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> LabelFigures:
    """Measure the blend on some labels; `predicted`, `truth`: (images, labels)."""
    predicted, truth = predicted[:, columns], truth[:, columns]
    shown = truth.any(axis=1)
    hits, numbers = int((predicted & truth).sum()), (int(truth.sum()), int(predicted.sum()))
    recall, precision = (divide(hits, number) for number in numbers)
    f2 = divide(float(score_samples(predicted[shown], truth[shown]).sum()), int(shown.sum()))
    return LabelFigures(label, len(columns), int(shown.sum()), *numbers, recall, precision, f2)


def divide(total: float, number: int) -> float | None:
    """Return the quotient, or None if `number` is 0."""
    return total / number if number else None


def name_steps(bounds: Sequence[float]) -> list[str]:
    """Name the ranges between bounds; each includes its lower bound."""
    steps = [f"{low:g} to below {high:g}" if low else f"below {high:g}" for low, high in pairwise(bounds)]
    return [*steps, f"{bounds[-1]:g} and above"]


def describe_slices(slices: Slices, faults: Sequence[str]) -> str:
    """Format all tables with their notes; `faults`: why the shape of an image is unknown."""
    kinds = list(slices.models[-1].f2)
    models = [
        (one.model, one.group, str(one.image_size or ""), f"{one.images}{'' if one.same_images else '*'}", one.f2)
        for one in slices.models
    ]
    shapes = [
        (one.shape, str(one.images), f"{one.images / slices.models[-1].images:.1%}", one.f2) for one in slices.shapes
    ]
    lines = [
        "F2 by model. Each half of the images is decided by rules fitted to the other half.",
        "A group's column: only images with a label of the group, with rules for the group alone.",
        "",
        *align_columns(
            [("model", "group", "px", "images", *kinds), *(show_kinds(row, kinds) for row in models)], left=2
        ),
    ]
    if not all(one.same_images for one in slices.models):
        lines.append("* on other images than the blend, so not comparable with it")
    lines += [
        "",
        "The blend by aspect ratio of the image (long side / short side)",
        "",
        *align_columns([("shape", "images", "share", *kinds), *(show_kinds(row, kinds) for row in shapes)], left=1),
    ]
    if faults:
        lines.append(f"unknown: {faults[0]}{f' and {len(faults) - 1} more' if faults[1:] else ''}")
    header = ("labels", "images", "true", "predicted", "recall", "precision", "F2")
    for title, name, rows in (
        ("The blend by label frequency", "images in train.csv", slices.frequencies),
        ("The blend by group", "group", slices.groups),
    ):
        cells = [
            (
                one.label,
                *map(str, (one.labels, one.images, one.true, one.taken)),
                *map(show, (one.recall, one.precision, one.f2)),
            )
            for one in rows
        ]
        lines += ["", title, "", *align_columns([(name, *header), *cells], left=1)]
    return "\n".join(
        [
            *lines,
            "",
            "In the last two tables, only the labels of the row count, with the rules for all labels. F2 is the mean",
            "over the images with such a label; true, predicted, recall and precision count pairs of image and label.",
        ]
    )


def show_kinds(row: tuple[Any, ...], kinds: Sequence[str]) -> tuple[str, ...]:
    """Replace the last cell of a row, F2 by kind, by one cell per kind."""
    return (*row[:-1], *(show(row[-1].get(kind)) for kind in kinds))


def show(figure: float | None) -> str:
    """Format a figure with four digits; None as a dash."""
    return "-" if figure is None else f"{figure:.4f}"
