"""What all folds of a recipe are trained on: labels, table, folds and images, checked before anything is trained."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.basics.files import hash_file
from inference.images.geometry import Geometry
from inference.manifest.labels import Labels, read_group_prefixes, read_labels
from inference.manifest.records import ALL
from training.data.folds import FOLDS_NAME, name_absent_labels, read_folds, split_folds, write_folds
from training.data.pictures import Pictures, check_pictures, find_pictures, open_cache
from training.recipe import Recipe
from zoo.networks import create_network
from zoo.text import NAMED
from zoo.train_table import Table, read_table


@dataclass(frozen=True)
class FitSettings:
    """One run of it.

    `out` takes all files; `manifest`: where the models are declared; `folds`: a table of folds that was made elsewhere;
    `fold`: only this one; `limit`: only the first rows of train.csv; `workers`: processes that read images, 0 for none;
    `save_seconds`: about how much work a kill may cost; `mixed_precision`: no, fp16, bf16, or None for what `accelerate
    launch` says.
    """

    recipe: Path
    data: Path
    out: Path
    manifest: Path | None = None
    folds: Path | None = None
    fold: int | None = None
    limit: int | None = None
    resume: bool = False
    allow_missing: bool = False
    workers: int = 1
    save_seconds: float = 600.0
    mixed_precision: str | None = None


@dataclass(frozen=True)
class Material:
    """What all folds of a recipe are trained on.

    `owners`: the fold of each image; `readable`: which images can be decoded, both (images,); `shown`: what training
    reads, `files`: what the kernel would read; `columns`: of the labels to learn.
    """

    labels: Labels
    table: Table
    owners: NDArray[np.int64]
    readable: NDArray[np.bool_]
    shown: Pictures
    files: Pictures
    columns: NDArray[np.int64]


def prepare_material(settings: FitSettings, recipe: Recipe) -> Material:
    """Tables, folds and images, checked before anything is trained."""
    labels_path = settings.out / "labels.csv"
    source = settings.data / "labels.csv"
    labels = read_labels(source, read_group_prefixes(source))
    columns = find_columns(labels, recipe.group)
    table = read_table(settings.data / "train.csv", labels, settings.limit)
    create_network(recipe.architecture, recipe.image_size, len(columns))  # before minutes of reading images
    if not labels_path.exists():
        shutil.copyfile(source, labels_path)
    if hash_file(labels_path) != hash_file(source):
        raise TrainingError(f"{labels_path}: differs from {source}; a zoo has one labels.csv: choose another --out")
    owners = open_folds(settings, recipe, table, labels)
    paths = find_pictures(settings.data / "train", table.ids, settings.allow_missing)
    files = shown = Pictures(paths)
    if recipe.cache:
        geometry = Geometry(recipe.cache, recipe.resize, "bilinear")
        squares, readable, faults = open_cache(paths, table.ids, geometry, settings.out / "cache")
        shown = Pictures(paths, squares)
    else:
        readable, faults = check_pictures(paths)
    if not readable.any():
        raise TrainingError(f"{settings.data / 'train'}: no image of train.csv can be read; the first: {faults[0]}")
    tell_left_out(paths, faults)
    return Material(labels, table, owners, readable, shown, files, columns)


def open_folds(settings: FitSettings, recipe: Recipe, table: Table, labels: Labels) -> NDArray[np.int64]:
    """The fold of each image: from the table given, else from the zoo's own, which is made where there is none."""
    own = settings.out / FOLDS_NAME
    if settings.folds is not None:
        owners = read_folds(settings.folds, table.ids)
        if own.exists() and (read_folds(own, table.ids) != owners).any():
            raise TrainingError(
                f"{settings.folds}: has other folds than {own}; a zoo has one split: choose another --out"
            )
    elif own.exists():
        owners = read_folds(own, table.ids)
    else:
        print(f"splitting {len(table.ids)} images into {recipe.folds} folds")
        owners = split_folds(table.targets, recipe.folds, recipe.seed)
        for line in name_absent_labels(table.targets, owners, labels):
            print(line)
    found = int(owners.max()) + 1
    if found != recipe.folds:
        raise TrainingError(
            f"{settings.folds or own}: has {found} folds, the recipe {settings.recipe} wants {recipe.folds}; "
            "change `folds` in the recipe, or choose another --out or --folds"
        )
    if not own.exists():
        write_folds(table.ids, owners, own)
    return owners


def find_columns(labels: Labels, group: str) -> NDArray[np.int64]:
    """The columns of a group's labels; raises TrainingError for a group that labels.csv does not have."""
    if group not in (ALL, *labels.groups):
        known = ", ".join(labels.groups)
        raise TrainingError(f"`group`: found {group!r}; wanted '{ALL}' or a group of labels.csv: {known}")
    return np.array(labels.columns(group))


def tell_left_out(paths: Sequence[Path | None], faults: Sequence[str]) -> None:
    """Name the images that training goes on without."""
    missing = sum(path is None for path in paths)
    if missing:
        print(f"left out {missing} images without a file", file=sys.stderr)
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        print(f"left out {len(faults)} unreadable images: {'; '.join(faults[:NAMED])}{more}", file=sys.stderr)
