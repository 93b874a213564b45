"""The training data of a recipe: labels, table, folds and images, checked before any training starts."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.basics.files import hash_file
from inference.images.geometry import Geometry, read_geometry
from inference.manifest.file import MANIFEST_NAME
from inference.manifest.labels import Labels
from inference.manifest.model import ALL, Model, Resize
from training.data.pictures import Pictures, check_pictures, find_pictures, open_cache
from training.data.source import Source, find_source, place_pictures
from training.recipe import Recipe
from training.recipe_check import check_entry, check_recipe
from training.recipe_model import describe_recipe, place_factory
from zoo.networks import Design
from zoo.tables.folds import FOLDS_NAME, name_absent_labels, read_folds, split_task, write_folds
from zoo.tables.train_table import Table, read_table
from zoo.text import NAMED


@dataclass(frozen=True)
class FitSettings:
    """Settings of a run of `python -m training fit`."""

    recipe: Path
    data: Path
    """Folder of the images, and of labels.csv and train.csv if the zoo has none."""
    out: Path
    """Folder of the zoo, for all files that are written."""
    manifest: Path | None = None
    """Manifest that declares the models; None: the one in `out`."""
    folds: Path | None = None
    """Table of folds; None: folds.csv in `out`, or a new split."""
    fold: int | None = None
    """Train only the network that holds out this fold."""
    limit: int | None = None
    """Use only this number of rows of train.csv, from the first."""
    resume: bool = False
    allow_missing: bool = False
    workers: int = 1
    """Processes that read images; 0: none."""
    save_minutes: float = 10.0
    """Time between two saved states: about the most work that a killed run loses."""
    mixed_precision: str | None = None
    """no, fp16 or bf16; None: the setting of `accelerate launch`."""

    def find_manifest(self) -> Path:
        """Return the path of the manifest that declares the models."""
        return self.manifest or self.out / MANIFEST_NAME


@dataclass(frozen=True)
class Material:
    """The training data of all folds of a recipe."""

    source: Source
    table: Table
    owners: NDArray[np.int64]
    """(images,): the fold of each image."""
    readable: NDArray[np.bool_]
    """(images,): whether the image can be decoded."""
    shown: Pictures
    """Images for training, from the cache if there is one."""
    files: Pictures
    """Images as the kernel reads them."""
    columns: NDArray[np.int64]
    """Columns of the labels to learn."""
    design: Design
    """Of the network."""
    entry: Model
    """What the manifest's entries of the folds share."""


def prepare_material(settings: FitSettings, recipe: Recipe) -> Material:
    """Read and check the tables, folds and images of a recipe."""
    source = find_source(settings.find_manifest(), settings.data)
    labels, labels_path = source.labels, settings.out / "labels.csv"
    columns = find_columns(labels, recipe.group)
    table = read_table(source.train, labels, source.task, settings.limit)
    check_recipe(recipe, source.task, table)
    home = settings.find_manifest().parent
    factory = place_factory(recipe, home, settings.out)
    design, entry = describe_recipe(recipe, factory, home, labels)  # fails early, before images are read
    check_entry(entry, source)
    if not labels_path.exists():
        shutil.copyfile(source.labels_path, labels_path)
    if hash_file(labels_path) != hash_file(source.labels_path):
        raise TrainingError(
            f"{labels_path}: differs from {source.labels_path}; a zoo has one labels.csv: choose another --out"
        )
    owners = open_folds(settings, recipe, table, source)
    folder, names = place_pictures(settings.data, table)
    paths = find_pictures(folder, table.ids, settings.allow_missing, names)
    files = shown = Pictures(paths)
    if recipe.cache:
        geometry = choose_cached(entry, recipe.cache)
        squares, readable, faults = open_cache(paths, table.ids, geometry, settings.out / "cache")
        shown = Pictures(paths, squares)
    else:
        readable, faults = check_pictures(paths)
    if not readable.any():
        raise TrainingError(f"{folder}: no image of train.csv can be read; first error: {faults[0]}")
    print_skipped(paths, faults)
    return Material(source, table, owners, readable, shown, files, columns, design, entry)


def choose_cached(model: Model, side: int) -> Geometry:
    """Return the geometry of cached images: that of the network's input, with `side` px as the shorter side.

    The cache is not cropped by `resize.percentage`: the network's own input is, when it is made from the cache.
    """
    geometry, (height, width) = read_geometry(model), model.size
    size = round(side * height / min(model.size)), round(side * width / min(model.size))
    return Geometry(size, Resize(model.resize.rule), "bilinear", fill=geometry.fill)


def open_folds(settings: FitSettings, recipe: Recipe, table: Table, source: Source) -> NDArray[np.int64]:
    """Return the fold of each image, from `settings.folds` or the zoo's folds.csv, which is made if it is missing."""
    own = settings.out / FOLDS_NAME
    if settings.folds is not None:
        owners = read_folds(settings.folds, table.ids)
        if own.exists() and (read_folds(own, table.ids) != owners).any():
            raise TrainingError(f"{settings.folds}: differs from {own}; a zoo has one split: choose another --out")
    elif own.exists():
        owners = read_folds(own, table.ids)
    else:
        print(f"splitting {len(table.ids)} images into {recipe.folds} folds")
        owners = split_task(table.targets, source.task, recipe.folds, recipe.seed)
        for line in name_absent_labels(table.targets, owners, source.labels):
            print(line)
    found = int(owners.max()) + 1
    if found != recipe.folds:
        raise TrainingError(
            f"{settings.folds or own}: found {found} folds; wanted {recipe.folds} as in the recipe {settings.recipe}; "
            "change `folds` in the recipe, or choose another --out or --folds"
        )
    if not own.exists():
        write_folds(table.ids, owners, own)
    return owners


def find_columns(labels: Labels, group: str) -> NDArray[np.int64]:
    """Return the columns of a group's labels; raises TrainingError if labels.csv has no such group."""
    if group not in (ALL, *labels.groups):
        known = ", ".join(labels.groups)
        raise TrainingError(f"`group`: found {group!r}; wanted '{ALL}' or a group of labels.csv: {known}")
    return np.array(labels.columns(group))


def print_skipped(paths: Sequence[Path | None], faults: Sequence[str]) -> None:
    """Print how many images are skipped, and why."""
    missing = sum(path is None for path in paths)
    if missing:
        print(f"skipped {missing} images without a file", file=sys.stderr)
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        print(f"skipped {len(faults)} unreadable images: {'; '.join(faults[:NAMED])}{more}", file=sys.stderr)
