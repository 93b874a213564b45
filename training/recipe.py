"""A recipe: how one network is trained, in a TOML file of its own. Strictly parsed: an unknown key is refused."""

import dataclasses
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from inference.basics.errors import ManifestError, TrainingError
from inference.manifest.records import ALL, Resize
from inference.manifest.schema import Rule, parse_record
from inference.manifest.values import FlatName, NotNegative, Probability

LossName = Literal["bce", "focal", "lovasz", "focal_lovasz"]
ScheduleName = Literal["one_cycle", "cosine", "constant"]
StoredPrecision = Literal["fp32", "fp16"]


def _at_least(least: int) -> Rule:
    return Rule(f"a whole number of at least {least}", lambda number: number >= least)


Positive = Annotated[float, Rule("a number above 0", lambda number: 0 < number < math.inf)]
Share = Annotated[float, Rule("a number above 0, at most 1", lambda number: 0 < number <= 1)]


@dataclass(frozen=True)
class Optimizer:
    """`name`: any of timm's (timm.optim.list_optimizers()); `learning_rate`: the highest of the schedule."""

    name: str = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True)
class Schedule:
    """`one_cycle`: Smith and Topin, Super-Convergence, 2018; `warmup`: the part of updates in which the rate rises."""

    name: ScheduleName = "one_cycle"
    warmup: Annotated[float, Rule("a number from 0 to below 1", lambda number: 0 <= number < 1)] = 0.2


@dataclass(frozen=True)
class Augmentation:
    """timm's RandomResizedCrop, horizontal flip and RandomErasing.

    `smallest_crop`: the least part of an image's area that is shown; `flip`, `erase`: their probabilities.
    """

    smallest_crop: Share = 0.5
    flip: Probability = 0.5
    erase: Probability = 0.0


@dataclass(frozen=True)
class LossSettings:
    """`smoothing`: of the labels, for bce; `gamma`: of the focal loss; `lovasz`: its weight beside the focal loss."""

    name: LossName = "bce"
    smoothing: Annotated[float, Rule("a number from 0 to below 1", lambda number: 0 <= number < 1)] = 0.0
    gamma: NotNegative = 2.0
    lovasz: Positive = 0.1


@dataclass(frozen=True)
class Initial:
    """Weights to start from; a head for other labels is left out. Neither: random ones.

    `pretrained`: the tag of timm's weights, as in `resnet34.a1_in1k` the a1_in1k (downloaded where they are not cached,
    "default" for timm's choice); `checkpoint`: a safetensors file, relative to the recipe.
    """

    pretrained: str | None = None
    checkpoint: str | None = None


@dataclass(frozen=True)
class Teacher:
    """Attention transfer from a trained model: Zagoruyko and Komodakis 2017, activation-based.

    `manifest`: relative to the recipe; `model`: its name there without _f0, _f1: the model of the same fold teaches;
    `weight`: of the transfer loss; the paper's 500 stands beside a cross-entropy summed over classes, not a mean.
    """

    manifest: str
    model: str
    weight: Positive = 1.0


@dataclass(frozen=True)
class Recipe:
    """One network; it is called after its file.

    An update of the weights sees `batch_size` x `accumulate` images a process. `ema`: the decay of the average of
    weights that predicts, 0 for none. `smallest_count`: labels with fewer training images are hidden from it. `cache`:
    side in px of the decoded images that are kept, 0 for none. `validation`: how many held-out images are looked at
    after each epoch, 0 for all. `precision`: of the weights in the checkpoint.
    """

    name: FlatName
    architecture: str
    image_size: Annotated[int, Rule("a whole number from 8 to 4096", lambda size: 8 <= size <= 4096)]
    epochs: Annotated[int, _at_least(1)]
    group: str = ALL
    folds: Annotated[int, _at_least(2)] = 5
    batch_size: Annotated[int, _at_least(2)] = 32
    accumulate: Annotated[int, _at_least(1)] = 1
    seed: Annotated[int, _at_least(0)] = 0
    ema: Annotated[float, Rule("a number from 0 to below 1", lambda decay: 0 <= decay < 1)] = 0.0
    smallest_count: Annotated[int, _at_least(0)] = 0
    cache: Annotated[int, _at_least(0)] = 0
    validation: Annotated[int, _at_least(0)] = 0
    precision: StoredPrecision = "fp16"
    resize: Resize = dataclasses.field(default_factory=Resize)
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    loss: LossSettings = LossSettings()
    initial: Initial = Initial()
    teacher: Teacher | None = None


def read_recipe(path: Path) -> Recipe:
    """The recipe of a file, its own paths made absolute; raises TrainingError naming the file and the key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such recipe; some are in {Path(__file__).parent / 'recipes'}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{path}: not a recipe: {error}") from error
    if "name" in document:
        raise TrainingError(f"{path}: `name`: unknown key; a recipe is called after its file")
    if not re.fullmatch(r"[\w.-]+", path.stem, re.A):
        raise TrainingError(f"{path}: found the name {path.stem!r}; wanted letters, digits, '.', '_' and '-'")
    try:
        recipe: Recipe = parse_record(Recipe, {"name": path.stem, **document})
    except ManifestError as error:
        raise TrainingError(f"{path}: {error}") from error
    if recipe.initial.pretrained is not None and recipe.initial.checkpoint is not None:
        raise TrainingError(f"{path}: `initial`: found pretrained and checkpoint; wanted one of them")
    return _make_absolute(recipe, path.parent)


def name_fold(recipe: Recipe, fold: int) -> str:
    """The name of a recipe's network that holds out `fold`: in the manifest, and of its files."""
    return f"{recipe.name}_f{fold}"


def _make_absolute(recipe: Recipe, home: Path) -> Recipe:
    if recipe.initial.checkpoint is not None:
        checkpoint = str((home / recipe.initial.checkpoint).resolve())
        recipe = dataclasses.replace(recipe, initial=dataclasses.replace(recipe.initial, checkpoint=checkpoint))
    if recipe.teacher is not None:
        manifest = str((home / recipe.teacher.manifest).resolve())
        recipe = dataclasses.replace(recipe, teacher=dataclasses.replace(recipe.teacher, manifest=manifest))
    return recipe
