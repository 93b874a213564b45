"""The entries of weights_manifest.json; an entry without a default is required."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from inference.manifest.decision import Decision
from inference.manifest.task import Task
from inference.manifest.values import (
    Count,
    FlatName,
    Interpolation,
    Loss,
    Merge,
    NotNegative,
    Precision,
    Probability,
    RelativePath,
    ResizeRule,
    Rule,
    Sha256,
    Triple,
    View,
    between,
    is_scale,
)

ALL = "all"
BLEND = "blend"
MAX_PIXELS = 100_000_000  # per image; the longest of iMet 2019, 7531x300, has 2 million
MOST_PIXELS = 178_956_970  # upper bound of the limit; Pillow refuses larger images


@dataclass(frozen=True)
class FileEntry:
    """A file in the manifest's folder, and its hash."""

    file: RelativePath
    sha256: Sha256


@dataclass(frozen=True)
class LabelsEntry:
    """labels.csv and the groups of its labels."""

    file: RelativePath
    sha256: Sha256
    groups: Annotated[
        Mapping[Annotated[str, Rule("a group name other than 'all'", lambda name: name not in ("", ALL))], str],
        Rule("at least one group", lambda groups: len(groups) > 0),
    ]
    """Group -> prefix of its labels' names."""


@dataclass(frozen=True)
class Resize:
    """How an image is resized to a square, as in timm's evaluation transforms."""

    rule: ResizeRule = "squash"
    """`squash` ignores the aspect ratio; `crop` keeps it and cuts out the centre."""
    percentage: Annotated[float, Rule("a number above 0, at most 1", lambda number: 0 < number <= 1)] = 1.0
    """timm's `crop_pct`: the image is resized to size / percentage, then cropped to size."""


@dataclass(frozen=True)
class Tiles:
    """How long images are cut into tiles along the long side (inference/images/tiles.py)."""

    aspect: Annotated[float, Rule("a number above 1, at most 1000", lambda number: 1 < number <= 1000)] = 3.0
    """An image is cut if its long side divided by its short side is larger."""
    most: Annotated[int, between(2, 32, "a whole number from 2 to 32")] = 8
    """Largest number of tiles per image."""
    merge: Merge = "mean"
    """How the scores of the tiles are combined."""


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of a model, in the files that `inference.pyz --predictions` writes."""

    scores: FileEntry
    """.npy, float16, (images, labels of the model's group)."""
    ids: FileEntry
    """The image ids of the rows, one per line."""


@dataclass(frozen=True)
class OnnxEntry:
    """An exported file and its errors on real images: of fp32 compared with torch, of other precisions with fp32."""

    file: FlatName
    sha256: Sha256
    opset: int
    parity: NotNegative
    """Largest difference in probability."""
    source: Sha256
    """Hash of all inputs of the export (packing/export/sources.py), to detect an outdated file."""
    flips: NotNegative = 0.0
    """Number of this model's predicted labels that change, divided by their number before; 0 where it predicts none."""
    metric_loss: Loss = 0.0
    """Loss of the task's metric against the truth if export had it, else against the answers from fp32.

    Of a metric that is better if lower: in shares of its value for the reference (packing/export/parity.py).
    """


@dataclass(frozen=True)
class Model:
    """One network of the zoo: its input, its checkpoint and its exported files."""

    name: FlatName
    architecture: str
    group: str
    """The group that its outputs cover, or 'all'."""
    image_size: Annotated[int, between(8, 4096, "a whole number from 8 to 4096")]
    """Side of the square input, px."""
    mean: Annotated[tuple[float, ...], Triple]
    """Per channel, for pixel values from 0 to 1; also `std`."""
    std: Annotated[
        tuple[float, ...],
        Triple,
        Rule("three numbers above 0, one per channel", lambda numbers: all(number > 0 for number in numbers)),
    ]
    interpolation: Interpolation
    resize: Resize = Resize()
    tiles: Tiles | None = None
    views: Annotated[
        tuple[View, ...],
        Rule("at least one view, each once", lambda views: len(views) > 0 and len(set(views)) == len(views)),
    ] = ("identity", "hflip")
    fold: int | None = None
    checkpoint: FileEntry | None = None
    out_of_fold: OutOfFold | None = None
    onnx: Mapping[Precision, OnnxEntry] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Stacker:
    """A second-stage model on the scores of members; a member is the models of one recipe, one per fold."""

    name: Annotated[FlatName, Rule(f"a name other than '{BLEND}'", lambda name: name != BLEND)]
    kind: Literal["cnn", "trees"]
    """Input of `cnn`: the scores of an image by member and label; of `trees`: one pair of image and label."""
    group: str
    """The group whose labels it scores, or 'all'."""
    members: Annotated[tuple[str, ...], Rule("at least one member", lambda names: len(names) > 0)]
    """In the order used in training."""
    onnx: FileEntry
    parity: NotNegative
    """Largest difference in probability to the model that was exported."""
    top: Count = 0
    """For `trees`: the labels per member with the highest scores become pairs; others keep the score of the blend."""


@dataclass(frozen=True)
class Ensemble:
    """How the scores of models are combined; only the ratios of weights matter."""

    weights: Mapping[str, Mapping[str, NotNegative]]
    """Group -> model -> weight in the blend."""
    stackers: tuple[Stacker, ...] = ()
    mix: Mapping[str, Mapping[str, NotNegative]] = dataclasses.field(default_factory=dict)
    """Group -> 'blend' or stacker -> weight; empty for the blend alone."""
    values: Mapping[str, Mapping[View, float]] = dataclasses.field(default_factory=dict)
    """Model -> view -> loss of the ensemble's out-of-fold metric without this view."""
    ranks: Mapping[str, Annotated[tuple[float, ...], Rule("ascending scores, at least two", is_scale)]] = (
        dataclasses.field(default_factory=dict)
    )
    """Model -> its scores at equally spaced ranks: the blend averages ranks instead of scores; empty: it does not."""


@dataclass(frozen=True)
class Runtime:
    """Limits of the kernel, and the script and wheels of the bundle."""

    time_limit: Annotated[int, between(1, 10**6, "seconds, from 1 to 1000000")] = 9 * 3600
    """In seconds."""
    notebook_reserve: Annotated[int, between(0, 10**5, "seconds, from 0 to 100000")] = 300
    """Seconds of the time limit kept for the start of the notebook, its page and Kaggle's own end."""
    batch_size: Annotated[int, between(1, 4096, "a whole number from 1 to 4096")] = 32
    """In images."""
    image_seconds: Annotated[float, between(0.001, 3600, "seconds, from 0.001 to 3600")] = 20.0
    """An image that takes longer to decode counts as unreadable."""
    metric_loss: Probability = 0.003
    """Largest `OnnxEntry.metric_loss` of a faster precision that may be used."""
    max_pixels: Annotated[int, between(1, MOST_PIXELS, f"a whole number from 1 to {MOST_PIXELS}")] = MAX_PIXELS
    """An image with more pixels counts as unreadable."""
    keep_top: Annotated[int, between(1, 10_000, "a whole number from 1 to 10000, or null")] | None = None
    """For `multiclass`: number of the best scores per image that are kept; None: all."""
    images: Annotated[int, between(1, 10**8, "a whole number from 1 to 100000000, or null")] | None = None
    """Expected number of test images of the rerun, for `dry-run` and `plan`; None: those of the sample."""
    draft: Annotated[float, between(1, 1000, "a number from 1 to 1000, or null")] | None = None
    """Decode a JPEG at reduced size if at least this many times the size that models need is left; None: never."""
    script: FileEntry | None = None
    wheels: tuple[FileEntry, ...] = ()

    def choose_time_limit(self, given: float | None) -> float:
        """Return the time limit in seconds: `given`, or the manifest's if that is None."""
        return self.time_limit if given is None else given

    def choose_reserve(self, limit: float) -> float:
        """Return the seconds of `limit` kept for the notebook: at most a tenth, as a short limit must predict too."""
        return min(self.notebook_reserve, limit / 10)


AnyFile = FileEntry | LabelsEntry | OnnxEntry


@dataclass(frozen=True)
class Manifest:
    """The whole of weights_manifest.json."""

    labels: LabelsEntry
    models: tuple[Model, ...]
    ensemble: Ensemble
    decision: Decision
    task: Task = dataclasses.field(default_factory=Task)
    runtime: Runtime = Runtime()
    schema_version: Literal[1] = 1

    def groups_of(self, model: Model) -> tuple[str, ...]:
        """Return the groups that the model's outputs cover."""
        return tuple(self.labels.groups) if model.group == ALL else (model.group,)


def name_member(model: Model) -> str:
    """Return the name of the model's member: the model's name without its fold suffix (_f0, _f1, …)."""
    return model.name if model.fold is None else model.name.removesuffix(f"_f{model.fold}")


def list_members(models: Iterable[Model]) -> dict[str, list[Model]]:
    """Group models by member, in their order: the models of one recipe, which differ by fold."""
    members: dict[str, list[Model]] = {}
    for model in models:
        members.setdefault(name_member(model), []).append(model)
    return members


def remove_stackers(manifest: Manifest) -> Manifest:
    """Return the manifest without the second stage: only the blend, decided by the rules of the fallback."""
    return dataclasses.replace(
        manifest,
        ensemble=dataclasses.replace(manifest.ensemble, stackers=(), mix={}),
        decision=dataclasses.replace(
            manifest.decision,
            groups=manifest.decision.fallback or manifest.decision.groups,
            rule="thresholds" if manifest.decision.rule == "expected_f" else manifest.decision.rule,
            calibration={},
            fallback={},
            fitted=manifest.decision.fallback_fitted or manifest.decision.fitted,
            fallback_fitted=None,
        ),
    )
