"""The entries of weights_manifest.json; an entry without a default is required."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from inference.manifest.decision import Decision
from inference.manifest.model import (
    ALL,
    FEATURES,
    RESERVED,
    FileEntry,
    Model,
    OnnxEntry,
    OutOfFold,
)
from inference.manifest.task import Activation, Task
from inference.manifest.values import (
    Count,
    FlatName,
    Mirror,
    NotNegative,
    Probability,
    RelativePath,
    Rule,
    Sha256,
    View,
    between,
    is_pair,
    is_scale,
)

BLEND = "blend"
MAX_PIXELS = 100_000_000  # per image; the longest of iMet 2019, 7531x300, has 2 million
MOST_PIXELS = 178_956_970  # upper bound of the limit; Pillow refuses larger images


@dataclass(frozen=True)
class LabelsEntry:
    """labels.csv and the groups of its labels."""

    file: RelativePath
    sha256: Sha256
    groups: Annotated[
        Mapping[
            Annotated[str, Rule("a group name other than 'all' and 'features'", lambda name: name not in RESERVED)], str
        ],
        Rule("at least one group", lambda groups: len(groups) > 0),
    ]
    """Group -> prefix of its labels' names."""
    exchanged: Mapping[Mirror, tuple[Annotated[tuple[int, ...], Rule("two different label ids", is_pair)], ...]] = (
        dataclasses.field(default_factory=dict)
    )
    """Mirror -> pairs of label ids whose scores it exchanges, such as left and right of `hflip`."""


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
    features: tuple[str, ...] = ()
    """For `trees`: the members of group 'features' whose outputs it reads, in the order used in training."""
    blend: str = BLEND
    """The blend that it was fitted with: 'blend' or one of `Ensemble.blends`."""


Weights = Mapping[str, Mapping[str, NotNegative]]


@dataclass(frozen=True)
class Ensemble:
    """How the scores of models are combined; only the ratios of weights matter."""

    weights: Weights
    """Group -> model -> weight in the blend."""
    stackers: tuple[Stacker, ...] = ()
    mix: Weights = dataclasses.field(default_factory=dict)
    """Group -> 'blend', one of `blends` or stacker -> weight; empty for the blend alone."""
    blends: Mapping[FlatName, Weights] = dataclasses.field(default_factory=dict)
    """Further blends for the mix: those of second stages that were merged; each as `weights`."""
    values: Mapping[str, Mapping[View, float]] = dataclasses.field(default_factory=dict)
    """Model -> view -> loss of the ensemble's out-of-fold metric without this view."""
    ranks: Mapping[str, Annotated[tuple[float, ...], Rule("ascending scores, at least two", is_scale)]] = (
        dataclasses.field(default_factory=dict)
    )
    """Model -> its scores at equally spaced ranks: the blend averages ranks instead of scores; empty: it does not."""
    fitted_for: Sha256 | None = None
    """Hash of the models that the second stage was fitted for (zoo/fitted_for.py); None: it was not fitted."""
    out_of_fold: OutOfFold | None = None
    """Out-of-fold scores of the second stage, (images, labels); None in a bundle."""


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
        """Return the groups that the model's outputs cover; none for `features`."""
        groups = {ALL: tuple(self.labels.groups), FEATURES: ()}
        return groups.get(model.group, (model.group,))

    def activation_of(self, model: Model) -> Activation:
        """Return what turns the model's outputs into scores."""
        return model.activation or self.task.activation

    def is_bounded(self, model: Model) -> bool:
        """Return whether the model's scores are probabilities; features are, unless they have no activation."""
        if model.group == FEATURES:
            return self.activation_of(model) != "identity"
        return self.task.has_probabilities

    def score_dtype(self, model: Model) -> Literal["float16", "float32"]:
        """Return the type in which the model's scores are stored."""
        if model.group == FEATURES:
            return "float16" if self.is_bounded(model) else "float32"
        return self.task.score_dtype


def remove_stackers(manifest: Manifest) -> Manifest:
    """Return the manifest without the second stage: only the blend, decided by the rules of the fallback."""
    return dataclasses.replace(
        manifest,
        ensemble=dataclasses.replace(manifest.ensemble, stackers=(), mix={}, blends={}),
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
