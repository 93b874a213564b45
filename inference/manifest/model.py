"""The entry of a network in weights_manifest.json: its input, its origin, its exported files."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from inference.manifest.task import Activation
from inference.manifest.values import (
    FlatName,
    GraphLayout,
    ImageSize,
    Interpolation,
    Loss,
    Merge,
    NotNegative,
    PerChannel,
    Precision,
    RelativePath,
    ResizeRule,
    Rule,
    Sha256,
    Size,
    Views,
    between,
    is_dataset,
    read_size,
    split_view,
)

ALL = "all"
FEATURES = "features"
RESERVED = ("", ALL, FEATURES)
"""No names of groups."""


@dataclass(frozen=True)
class FileEntry:
    """A file in the manifest's folder, and its hash."""

    file: RelativePath
    sha256: Sha256


@dataclass(frozen=True)
class Resize:
    """How an image is resized to the input of a model."""

    rule: ResizeRule = "squash"
    """`squash` ignores the aspect ratio; `crop` keeps it and cuts out the centre; `trim` cuts off what is beyond twice
    the size, then squashes; `letterbox` keeps the aspect ratio and fills the rest with the mean colour."""
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
class Factory:
    """A function of one's own that builds a network: FUNCTION(outputs, **arguments) -> torch.nn.Module."""

    file: RelativePath
    """A Python file in the manifest's folder, which export and training run."""
    sha256: Sha256
    function: Annotated[str, Rule("the name of a function", str.isidentifier)]
    arguments: Mapping[Annotated[str, Rule("the name of an argument", str.isidentifier)], Any] = dataclasses.field(
        default_factory=dict
    )


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions, in the files that `inference.pyz --predictions` writes."""

    scores: FileEntry
    """.npy, in the task's score type, (images, outputs of the model)."""
    ids: FileEntry
    """The image ids of the rows, one per line."""


@dataclass(frozen=True)
class OnnxEntry:
    """An exported file and its errors on real images: of fp32 compared with torch, of other precisions with fp32."""

    file: FlatName
    sha256: Sha256
    opset: int
    parity: NotNegative
    """Largest difference in score."""
    source: Sha256
    """Hash of all inputs of the export (packing/export/sources.py), to detect an outdated file."""
    flips: NotNegative = 0.0
    """Number of this model's predicted labels that change, divided by their number before; 0 where it predicts none."""
    metric_loss: Loss = 0.0
    """Loss of the task's metric against the truth if export had it, else against the answers from fp32.

    Of a metric that is better if lower: in shares of its value for the reference (packing/export/parity.py).
    """
    dataset: Annotated[str, Rule("OWNER/SLUG of a dataset", is_dataset)] | None = None
    """The attached dataset that has the file; None: the bundle."""


@dataclass(frozen=True)
class Model:
    """One network of the zoo: its input, its checkpoint and its exported files."""

    name: FlatName
    architecture: str
    """timm's name of the network; with `factory`, FILE:FUNCTION; with `layout`, a description."""
    group: str
    """The group that its outputs cover, 'all', or 'features': its outputs are no labels, and only stackers read them.
    """
    image_size: ImageSize
    """Side of a square input, or height and width, px."""
    mean: Annotated[tuple[float, ...], PerChannel]
    """Per channel, for pixel values from 0 to 1; also `std`. One number: the network sees grey."""
    std: Annotated[
        tuple[float, ...],
        PerChannel,
        Rule("numbers above 0, one per channel", lambda numbers: all(number > 0 for number in numbers)),
    ]
    interpolation: Interpolation
    resize: Resize = Resize()
    tiles: Tiles | None = None
    views: Views = ("identity", "hflip")
    merge: Merge = "mean"
    """How the scores of the views are combined."""
    member: FlatName | None = None
    """Name that the folds of one recipe share; None: the model is a member of its own."""
    fold: int | None = None
    """The fold that it was not trained on."""
    factory: Factory | None = None
    layout: GraphLayout | None = None
    """Of the checkpoint if that is an ONNX graph made elsewhere; None: it has weights of a torch network."""
    activation: Activation | None = None
    """From the outputs to scores; None: that of the task. `identity`: the network's outputs are scores already."""
    outputs: Annotated[int, between(0, 100_000, "a whole number from 0 to 100000")] = 0
    """Number of outputs of a model for `features`; 0 for the others: they have one per label of the group."""
    label_order: tuple[int, ...] = ()
    """Label ids in the order of the network's outputs; empty: the order of labels.csv."""
    ema: bool = True
    """Take the moving average of a checkpoint that has both the average and the plain weights."""
    checkpoint: FileEntry | None = None
    out_of_fold: OutOfFold | None = None
    onnx: Mapping[Precision, OnnxEntry] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> Size:
        """Height and width of the network's input, px."""
        return read_size(self.image_size)

    @property
    def channels(self) -> int:
        """Number of channels that the network sees: 3 for RGB, 1 for grey."""
        return len(self.mean)

    @property
    def cuts(self) -> tuple[str, ...]:
        """The views that the graph makes, each once, in the order of `views`: those of other scales are cut alike."""
        return tuple(dict.fromkeys(split_view(view).cut for view in self.views))


def name_member(model: Model) -> str:
    """Return the name of the model's member."""
    return model.name if model.member is None else model.member


def list_members(models: Iterable[Model]) -> dict[str, list[Model]]:
    """Group models by member, in their order; those for `features` too."""
    members: dict[str, list[Model]] = {}
    for model in models:
        members.setdefault(name_member(model), []).append(model)
    return members
