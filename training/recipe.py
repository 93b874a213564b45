"""Recipes: TOML files that describe how a network is trained. An unknown key is an error."""

import dataclasses
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from inference.basics.errors import ManifestError, TrainingError
from inference.manifest.model import ALL, Resize
from inference.manifest.schema import parse_record
from inference.manifest.values import FlatName, ImageSize, Merge, NotNegative, Probability, Rule, Size, Views, read_size

LossName = Literal["bce", "focal", "lovasz", "focal_lovasz", "cross_entropy", "mse", "huber"]
ScheduleName = Literal["one_cycle", "cosine", "constant"]
StoredPrecision = Literal["fp32", "fp16"]
KeptEpoch = Literal["last", "best"]


def _at_least(least: int) -> Rule:
    return Rule(f"a whole number of at least {least}", lambda number: number >= least)


Positive = Annotated[float, Rule("a number above 0", lambda number: 0 < number < math.inf)]
Share = Annotated[float, Rule("a number above 0, at most 1", lambda number: 0 < number <= 1)]


@dataclass(frozen=True)
class OwnNetwork:
    """A function of one's own that builds the network: FUNCTION(outputs, **arguments) -> torch.nn.Module."""

    file: Annotated[str, Rule("the path of a Python file", lambda file: file.endswith(".py"))]
    """Relative to the recipe."""
    function: Annotated[str, Rule("the name of a function", str.isidentifier)]
    arguments: Mapping[Annotated[str, Rule("the name of an argument", str.isidentifier)], Any] = dataclasses.field(
        default_factory=dict
    )


@dataclass(frozen=True)
class Optimizer:
    """An optimizer of timm."""

    name: str = "adam"
    """One of timm.optim.list_optimizers()."""
    learning_rate: Positive = 1e-3
    """The highest of the schedule."""
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the updates of the weights."""

    name: ScheduleName = "one_cycle"
    """Source of one_cycle: Smith and Topin, Super-Convergence, 2018."""
    warmup: Annotated[float, Rule("a number from 0 to below 1", lambda number: 0 <= number < 1)] = 0.2
    """Share of the updates in which the rate rises."""


@dataclass(frozen=True)
class Augmentation:
    """Settings of timm's RandomResizedCrop, horizontal flip, RandomErasing and Mixup."""

    smallest_crop: Share = 0.5
    """Smallest share of an image's area that a crop may have."""
    flip: Probability = 0.5
    erase: Probability = 0.0
    mixup: NotNegative = 0.0
    """Alpha of mixup: two images are mixed in shares from Beta(alpha, alpha); 0: none. Zhang et al., 2018."""
    cutmix: NotNegative = 0.0
    """Alpha of CutMix; with `mixup`, each batch gets one of the two at random; 0: none. Yun et al., 2019."""


@dataclass(frozen=True)
class LossSettings:
    """The loss and its parameters (training/fit/losses.py)."""

    name: LossName | None = None
    """None: bce for multilabel and binary, cross_entropy for multiclass, mse for regression."""
    smoothing: Annotated[float, Rule("a number from 0 to below 1", lambda number: 0 <= number < 1)] = 0.0
    """Label smoothing of bce and cross_entropy."""
    gamma: NotNegative = 2.0
    """Exponent of the focal loss."""
    lovasz: Positive = 0.1
    """Weight of the Lovász hinge in focal_lovasz, where the focal loss has weight 1."""
    delta: Positive = 0.1
    """Error from which huber grows linearly, as a share of the task's `value_range`."""


@dataclass(frozen=True)
class Initial:
    """Weights to start from, without a head for other labels; random weights if neither field is set."""

    pretrained: str | None = None
    """Tag of timm's weights, such as a1_in1k in `resnet34.a1_in1k`, or "default"; downloaded if not cached."""
    checkpoint: str | None = None
    """A file of weights in any form that `build_kernel.py add` takes, relative to the recipe."""


@dataclass(frozen=True)
class Teacher:
    """A trained model for attention transfer: Zagoruyko and Komodakis 2017, activation-based."""

    manifest: str
    """Relative to the recipe."""
    model: str
    """Name of a member or of a model in the manifest: the model of the same fold teaches."""
    weight: Positive = 1.0
    """Of the transfer loss. The paper's 500 is for a cross-entropy summed over classes; bce is a mean."""


@dataclass(frozen=True)
class Recipe:
    """The training of one network per fold."""

    name: FlatName
    """The file's name without .toml."""
    architecture: str
    """timm's name of the network; with `factory`, which replaces this key, read_recipe sets FILE:FUNCTION."""
    image_size: ImageSize
    """Side of a square input, or height and width, px."""
    epochs: Annotated[int, _at_least(1)]
    group: str = ALL
    folds: Annotated[int, _at_least(2)] = 5
    batch_size: Annotated[int, _at_least(2)] = 32
    """Images per batch and process."""
    accumulate: Annotated[int, _at_least(1)] = 1
    """Batches per update of the weights."""
    seed: Annotated[int, _at_least(0)] = 0
    ema: Annotated[float, Rule("a number from 0 to below 1", lambda decay: 0 <= decay < 1)] = 0.0
    """Decay of the moving average of the weights, which then predicts; 0: no average."""
    keep: KeptEpoch = "last"
    """Which epoch's weights become the checkpoint; `best`: by the task's metric on the held-out images."""
    smallest_count: Annotated[int, _at_least(0)] = 0
    """Labels with fewer training images are hidden from the network."""
    cache: Annotated[int, _at_least(0)] = 0
    """Shorter side in px of the decoded images that are kept in a file; 0: no cache."""
    validation: Annotated[int, _at_least(0)] = 0
    """Number of held-out images that are predicted after each epoch; 0: all."""
    precision: StoredPrecision = "fp16"
    """Of the weights in the checkpoint."""
    channels: Literal[1, 3] = 3
    """That the network sees: 3 for RGB, 1 for grey."""
    views: Views = ("identity", "hflip")
    """Of held-out images, and in the kernel."""
    merge: Merge = "mean"
    """How the scores of the views are combined."""
    factory: OwnNetwork | None = None
    resize: Resize = dataclasses.field(default_factory=Resize)
    """Of held-out images, and in the kernel; training always uses timm's RandomResizedCrop (`augmentation`)."""
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    loss: LossSettings = LossSettings()
    initial: Initial = Initial()
    teacher: Teacher | None = None

    @property
    def size(self) -> Size:
        """Height and width of the network's input, px."""
        return read_size(self.image_size)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe and make its paths absolute; raises TrainingError naming the file and the key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such recipe; examples are in {Path(__file__).parent / 'recipes'}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{path}: not a recipe: {error}") from error
    if "name" in document:
        raise TrainingError(f"{path}: `name`: unknown key; a recipe is named after its file; remove the key")
    if not re.fullmatch(r"[\w.-]+", path.stem, re.A):
        raise TrainingError(f"{path}: found the name {path.stem!r}; wanted letters, digits, '.', '_', '-'; rename it")
    try:
        recipe: Recipe = parse_record(Recipe, {"name": path.stem, "architecture": "", **document})
    except ManifestError as error:
        raise TrainingError(f"{path}: {error}") from error
    for fault in _list_faults(recipe):
        raise TrainingError(f"{path}: {fault}")
    return _make_absolute(recipe, path.parent)


def name_fold(recipe: Recipe, fold: int) -> str:
    """Return the name of the network that holds out `fold`, in the manifest and of its files."""
    return f"{recipe.name}_f{fold}"


def _list_faults(recipe: Recipe) -> Iterator[str]:
    """Yield what is wrong with keys that depend on one another."""
    initial = recipe.initial
    if bool(recipe.architecture) == (recipe.factory is not None):
        yield (
            f"`architecture` and `factory`: found {'both' if recipe.factory else 'neither'}; wanted timm's name of a "
            "network as `architecture`, or a table [factory] with the function that builds one"
        )
    if recipe.cache and recipe.resize.rule == "trim":
        yield (
            f"`cache`: found {recipe.cache}; wanted 0 with the resize rule 'trim', which depends on the size of the "
            "whole image in px"
        )
    if initial.pretrained is not None and recipe.factory is not None:
        yield (
            f"`initial.pretrained`: found {initial.pretrained!r}; wanted none with `factory`: its function may load "
            "weights itself, or set `initial.checkpoint`"
        )
    if initial.pretrained is not None and initial.checkpoint is not None:
        yield "`initial`: found pretrained and checkpoint; wanted one of them"


def _make_absolute(recipe: Recipe, home: Path) -> Recipe:
    if recipe.factory is not None:
        file = (home / recipe.factory.file).resolve()
        if not file.is_file():
            raise TrainingError(f"{home / recipe.name}.toml: `factory.file`: no such file: {file}")
        factory = dataclasses.replace(recipe.factory, file=str(file))
        recipe = dataclasses.replace(recipe, factory=factory, architecture=f"{file.name}:{factory.function}")
    if recipe.initial.checkpoint is not None:
        checkpoint = str((home / recipe.initial.checkpoint).resolve())
        recipe = dataclasses.replace(recipe, initial=dataclasses.replace(recipe.initial, checkpoint=checkpoint))
    if recipe.teacher is not None:
        manifest = str((home / recipe.teacher.manifest).resolve())
        recipe = dataclasses.replace(recipe, teacher=dataclasses.replace(recipe.teacher, manifest=manifest))
    return recipe
