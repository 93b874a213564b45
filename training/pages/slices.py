"""How good each model and the blend are, and on which images and labels the blend is weak: tables of F2."""

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
# EXIF 2.3, table 6: these orientations lie on their side.
SIDEWAYS = (5, 6, 7, 8)
BLEND = "blend"


@dataclass(frozen=True)
class ModelFigures:
    """A row of the first table: the networks of one recipe, or the blend of all.

    `images`: that they held out; `same_images`: the blend's; `f2`: by kind of labels, 'all' or a group; None where no
    image has a label of it.
    """

    model: str
    group: str
    image_size: int | None
    images: int
    same_images: bool
    f2: dict[str, float | None]


@dataclass(frozen=True)
class ShapeFigures:
    """The blend on the images of one shape; `f2` as in ModelFigures."""

    shape: str
    images: int
    f2: dict[str, float | None]


@dataclass(frozen=True)
class LabelFigures:
    """The blend on some labels as if there were no others; None where there is nothing to divide by.

    `images`: with one of them; `true`, `taken`: pairs of an image and a label; `recall`, `precision`: of these pairs
    (micro-averaged); `f2`: mean over `images`.
    """

    label: str
    labels: int
    images: int
    true: int
    taken: int
    recall: float | None
    precision: float | None
    f2: float | None


@dataclass(frozen=True)
class Slices:
    """All figures of the command."""

    models: list[ModelFigures]
    shapes: list[ShapeFigures]
    frequencies: list[LabelFigures]
    groups: list[LabelFigures]


def print_slices(train: Path, images: Path, manifest: Path, json_path: Path | None = None) -> None:
    """Print the F2 of each model and of the blend, and the blend's by shape, by frequency of label and by group.

    From out-of-fold predictions, each half of the images decided by rules fitted to the other half. `json_path`: write
    the same figures there. Raises ManifestError, TableError, TrainingError or OutputError.
    """
    zoo = open_zoo(manifest)
    check_coverage(zoo.manifest)
    table = read_table(train, zoo.labels)
    blend = pool_blend(zoo, table)
    sizes, faults = measure_sizes(images, [table.ids[row] for row in blend.rows])
    truth = table.targets[blend.rows]
    taken = decide_crossed(blend.scores, truth, zoo.labels)
    f2 = {kind: score_images(blend, table, zoo.labels, kind) for kind in blend.kinds(zoo.labels) if kind != ALL}
    f2 = {ALL: score_samples(taken, truth), **f2}
    slices = Slices(
        [*measure_models(zoo, table, blend), ModelFigures(BLEND, ALL, None, len(truth), True, average_kinds(f2))],
        slice_shapes(sizes, f2),
        slice_frequencies(taken, truth, table.targets.sum(axis=0)),
        [measure_labels(group, list(columns), taken, truth) for group, columns in zoo.labels.groups.items()],
    )
    if json_path is not None:
        with replace_file(json_path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(slices), indent=2) + "\n", encoding="utf-8")
    print(describe_slices(slices, faults))


def measure_models(zoo: Zoo, table: Table, blend: PooledScores) -> list[ModelFigures]:
    """The models of the manifest, those of one recipe and different folds as one; F2 of none without predictions."""
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
    """F2 of each image by cross-fitted rules for this kind of labels, (images,); NaN for one without a label of it."""
    truth = table.targets[pool.rows]
    f2 = np.full(len(truth), np.nan)
    f2[truth[:, labels.columns(kind)].any(axis=1) | (kind == ALL)] = score_kind(pool.scores, truth, labels, kind)
    return f2


def average_kinds(f2: dict[str, NDArray[np.float64]]) -> dict[str, float | None]:
    """The mean over the images that count, by kind of labels."""
    return {kind: divide(float(np.nansum(part)), int(np.isfinite(part).sum())) for kind, part in f2.items()}


def measure_sizes(folder: Path, ids: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Width and height of each image, upright, (images, 2), from its header; 0 where it has none, and why not.

    Raises TrainingError where the folder holds none of them.
    """
    paths = find_pictures(folder, ids, allow_missing=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # to wait for many files at once
        found = list(pool.map(read_size, paths))
    faults = [
        f"{image}: no such image in {folder}" if path is None else f"{path.name}: its header cannot be read"
        for image, path, size in zip(ids, paths, found, strict=True)
        if size == (0, 0)
    ]
    return np.array(found, np.int64).reshape(-1, 2), faults


def read_size(path: Path | None) -> tuple[int, int]:
    """Width and height of an image, upright, in px, without decoding it; (0, 0) where that cannot be read."""
    if path is None:
        return 0, 0
    try:
        with Image.open(path) as image:
            # Not image.getexif: for PNG it decodes all pixels first, to look for EXIF behind them.
            turned = Image.Image.getexif(image).get(ORIENTATION_TAG) in SIDEWAYS
            turned = turned and image.format != "TIFF"  # whose size Pillow has turned already
            return (image.height, image.width) if turned else image.size
    except Exception:  # headers break in as many ways as pixels; see read_image
        return 0, 0


def slice_shapes(sizes: NDArray[np.int64], f2: dict[str, NDArray[np.float64]]) -> list[ShapeFigures]:
    """The blend on images below and above 2 in long side over short side, and in finer steps.

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
    taken: NDArray[np.bool_], truth: NDArray[np.bool_], images: NDArray[np.int64]
) -> list[LabelFigures]:
    """The blend by how many images of train.csv have a label.

    `taken`, `truth`: (images, labels); `images`: (labels,).
    """
    steps = np.digitize(images, RARITY_BOUNDS)
    return [
        measure_labels(name, np.flatnonzero(steps == step).tolist(), taken, truth)
        for step, name in enumerate(name_steps(RARITY_BOUNDS), 1)
    ]


def measure_labels(label: str, columns: list[int], taken: NDArray[np.bool_], truth: NDArray[np.bool_]) -> LabelFigures:
    """The figures of some labels; `taken`, `truth`: (images, labels)."""
    taken, truth = taken[:, columns], truth[:, columns]
    shown = truth.any(axis=1)
    hits, numbers = int((taken & truth).sum()), (int(truth.sum()), int(taken.sum()))
    recall, precision = (divide(hits, number) for number in numbers)
    f2 = divide(float(score_samples(taken[shown], truth[shown]).sum()), int(shown.sum()))
    return LabelFigures(label, len(columns), int(shown.sum()), *numbers, recall, precision, f2)


def divide(total: float, number: int) -> float | None:
    """The quotient, or None where there is nothing to divide by."""
    return total / number if number else None


def name_steps(bounds: Sequence[float]) -> list[str]:
    """Names of the steps between bounds, each from its bound to below the next."""
    steps = [f"{low:g} to below {high:g}" if low else f"below {high:g}" for low, high in pairwise(bounds)]
    return [*steps, f"{bounds[-1]:g} and above"]


def describe_slices(slices: Slices, faults: Sequence[str]) -> str:
    """All tables with what is to be known of them; `faults`: why images have no shape."""
    kinds = list(slices.models[-1].f2)
    models = [
        (one.model, one.group, str(one.image_size or ""), f"{one.images}{'' if one.same_images else '*'}", one.f2)
        for one in slices.models
    ]
    shapes = [
        (one.shape, str(one.images), f"{one.images / slices.models[-1].images:.1%}", one.f2) for one in slices.shapes
    ]
    lines = [
        "F2 of each half of the images by rules fitted to the other half",
        "(of a group: on the images with a label of it, by rules for it alone)",
        "",
        *align_columns(
            [("model", "group", "px", "images", *kinds), *(show_kinds(row, kinds) for row in models)], left=2
        ),
    ]
    if not all(one.same_images for one in slices.models):
        lines.append("* other images than the blend's: no figure to compare with the blend's")
    lines += [
        "",
        "The blend by shape of the image, long side over short side",
        "",
        *align_columns([("shape", "images", "share", *kinds), *(show_kinds(row, kinds) for row in shapes)], left=1),
    ]
    if faults:
        lines.append(f"unknown: {faults[0]}{f' and {len(faults) - 1} more' if faults[1:] else ''}")
    header = ("labels", "images", "true", "taken", "recall", "precision", "F2")
    for title, name, rows in (
        ("The blend by how many images of train.csv have the label", "label in train.csv", slices.frequencies),
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
            "The last two tables judge each row's labels as if there were no others, by rules fitted to all together;",
            "images: with one of them; true, taken: pairs of image and label; F2: mean over the images.",
        ]
    )


def show_kinds(row: tuple[Any, ...], kinds: Sequence[str]) -> tuple[str, ...]:
    """A row whose last cell is F2 by kind, with a cell for each kind."""
    return (*row[:-1], *(show(row[-1].get(kind)) for kind in kinds))


def show(figure: float | None) -> str:
    """Four digits, or a dash where there is no figure."""
    return "-" if figure is None else f"{figure:.4f}"
