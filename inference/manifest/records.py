"""From scores to labels, as the manifest declares it; inference/ensemble/decide.py does it."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from inference.manifest.schema import Rule
from inference.manifest.values import (
    Count,
    DecisionRule,
    FlatName,
    Interpolation,
    Loss,
    Merge,
    NotNegative,
    Precision,
    Probability,
    RelativePath,
    ResizeRule,
    Sha256,
    Triple,
    View,
    between,
    is_ascending,
)


@dataclass(frozen=True)
class GroupDecision:
    """Labels of a group that are taken: those at or above the threshold, at least `minimum`, at most `maximum`."""

    threshold: Probability
    minimum: Count
    maximum: Count


@dataclass(frozen=True)
class Calibration:
    """From a group's scores to chances: straight lines between points, flat beyond the first and the last."""

    scores: Annotated[tuple[Probability, ...], Rule("ascending scores, at least one", is_ascending)]
    chances: Annotated[tuple[Probability, ...], Rule("ascending chances, at least one", is_ascending)]


@dataclass(frozen=True)
class Decision:
    """From scores to labels; `prior`: ids of the labels given to an image that cannot be read.

    `rule`: by each group's threshold and numbers of labels, or the labels of the highest expected F2, at most
    `maximum`, by the chances that `calibration` gives. `fallback`: the thresholds of the blend, for a run in which a
    stacker fails; empty where there is no stacker.
    """

    groups: Mapping[str, GroupDecision]
    prior: Annotated[tuple[int, ...], Rule("at least one label id", lambda ids: len(ids) > 0)]
    rule: DecisionRule = "thresholds"
    calibration: Mapping[str, Calibration] = dataclasses.field(default_factory=dict)
    maximum: Annotated[int, between(1, 100, "a whole number from 1 to 100")] = 30
    fallback: Mapping[str, GroupDecision] = dataclasses.field(default_factory=dict)


ALL = "all"
BLEND = "blend"
MAX_PIXELS = 100_000_000  # of one image; the longest of iMet 2019, 7531x300, has 2 million
MOST_PIXELS = 178_956_970  # of any limit: beyond, Pillow itself refuses


@dataclass(frozen=True)
class FileEntry:
    """A file beside the manifest and the hash that it must have."""

    file: RelativePath
    sha256: Sha256


@dataclass(frozen=True)
class LabelsEntry:
    """labels.csv and the prefix of each group's label names."""

    file: RelativePath
    sha256: Sha256
    groups: Annotated[
        Mapping[Annotated[str, Rule("a group name other than 'all'", lambda name: name not in ("", ALL))], str],
        Rule("at least one group", lambda groups: len(groups) > 0),
    ]


@dataclass(frozen=True)
class Resize:
    """How an image becomes a square, as timm's evaluation transforms do it.

    `squash` ignores the aspect ratio, `crop` keeps it and takes the centre; both first resize to size / percentage.
    """

    rule: ResizeRule = "squash"
    percentage: Annotated[float, Rule("a number above 0, at most 1", lambda number: 0 < number <= 1)] = 1.0


@dataclass(frozen=True)
class Tiles:
    """How a model looks at long images: at tiles along the long side (inference/images/tiles.py).

    `aspect`: long by short side, beyond which an image is cut; `most`: tiles of one image; `merge`: how the tiles'
    scores become the image's.
    """

    aspect: Annotated[float, Rule("a number above 1, at most 1000", lambda number: 1 < number <= 1000)] = 3.0
    most: Annotated[int, between(2, 32, "a whole number from 2 to 32")] = 8
    merge: Merge = "mean"


@dataclass(frozen=True)
class OutOfFold:
    """Predictions on images that the model was not trained on, as `inference.pyz --predictions` writes them.

    `scores`: .npy, float16, (images, labels of the model's group); `ids`: the image ids of its rows, one a line.
    """

    scores: FileEntry
    ids: FileEntry


@dataclass(frozen=True)
class OnnxEntry:
    """An exported file and what it loses on real images: fp32 against torch, other precisions against fp32.

    `parity`: largest difference in probability; `flips`: labels that the model alone decides otherwise, as a share of
    those taken; `f2_loss`: what their F2 loses, against the truth where export was given it, else against what fp32
    takes. `source`: hash of all that it was made from (packing/export/sources.py), which detects an outdated export.
    """

    file: FlatName
    sha256: Sha256
    opset: int
    parity: NotNegative
    source: Sha256
    flips: NotNegative = 0.0
    f2_loss: Loss = 0.0


@dataclass(frozen=True)
class Model:
    """One network of the zoo: a checkpoint, what it looks at, and how images reach it."""

    name: FlatName
    architecture: str
    group: str
    image_size: Annotated[int, between(8, 4096, "a whole number from 8 to 4096")]
    mean: Annotated[tuple[float, ...], Triple]
    std: Annotated[
        tuple[float, ...],
        Triple,
        Rule("three numbers above 0, one a channel", lambda numbers: all(number > 0 for number in numbers)),
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
    """A second model, over the scores of members: the models of one recipe, one a fold (inference/ensemble/blend.py).

    `cnn` sees an image's scores by member and label, `trees` one pair of image and label. `group`: whose labels it
    scores. `members`: in the order that it was fitted with. `top`: of `trees`, how many labels of each member become
    pairs; the others keep the blend's score. `parity`: largest difference to what it was exported from.
    """

    name: Annotated[FlatName, Rule(f"a name other than '{BLEND}'", lambda name: name != BLEND)]
    kind: Literal["cnn", "trees"]
    group: str
    members: Annotated[tuple[str, ...], Rule("at least one member", lambda names: len(names) > 0)]
    onnx: FileEntry
    parity: NotNegative
    top: Count = 0


@dataclass(frozen=True)
class Ensemble:
    """How many scores become one; of all weights only the ratios count.

    `weights`: for each group, the weight of each model that covers it in the blend. `mix`: for each group, the weight
    of the blend and of each stacker; empty for the blend alone. `values`: for each model and view, what the
    out-of-fold F2 of the whole loses without it.
    """

    weights: Mapping[str, Mapping[str, NotNegative]]
    stackers: tuple[Stacker, ...] = ()
    mix: Mapping[str, Mapping[str, NotNegative]] = dataclasses.field(default_factory=dict)
    values: Mapping[str, Mapping[View, float]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Runtime:
    """Limits of the kernel, and the script and wheels of the bundle.

    `time_limit` in seconds, `batch_size` in images; an image that has more than `max_pixels`, or is not decoded after
    `image_seconds`, counts as unreadable. `f2_loss`: the most that a model may lose to a precision that is faster.
    `draft`: decode a JPEG reduced where so many times what models resize it to is left; None for never.
    """

    time_limit: Annotated[int, between(1, 10**6, "seconds, from 1 to 1000000")] = 9 * 3600
    batch_size: Annotated[int, between(1, 4096, "a whole number from 1 to 4096")] = 32
    image_seconds: Annotated[float, between(0.001, 3600, "seconds, from 0.001 to 3600")] = 20.0
    f2_loss: Probability = 0.003
    max_pixels: Annotated[int, between(1, MOST_PIXELS, f"a whole number from 1 to {MOST_PIXELS}")] = MAX_PIXELS
    draft: Annotated[float, between(1, 1000, "a number from 1 to 1000, or null")] | None = None
    script: FileEntry | None = None
    wheels: tuple[FileEntry, ...] = ()

    def choose_time_limit(self, given: float | None) -> float:
        """The limit in seconds: `given`, or where that is None the manifest's."""
        return self.time_limit if given is None else given


AnyFile = FileEntry | LabelsEntry | OnnxEntry


@dataclass(frozen=True)
class Manifest:
    """The whole declaration; every cross-reference in it holds."""

    labels: LabelsEntry
    models: tuple[Model, ...]
    ensemble: Ensemble
    decision: Decision
    runtime: Runtime = Runtime()
    schema_version: Literal[1] = 1

    def groups_of(self, model: Model) -> tuple[str, ...]:
        """The groups whose labels the model's head covers."""
        return tuple(self.labels.groups) if model.group == ALL else (model.group,)


def name_member(model: Model) -> str:
    """What the models of one recipe share: the name without the fold at its end, _f0, _f1."""
    return model.name if model.fold is None else model.name.removesuffix(f"_f{model.fold}")


def list_members(models: Iterable[Model]) -> dict[str, list[Model]]:
    """The models of each member of the ensemble, in their order: the networks of one recipe, which differ by fold."""
    members: dict[str, list[Model]] = {}
    for model in models:
        members.setdefault(name_member(model), []).append(model)
    return members
