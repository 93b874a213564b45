"""What a competition asks: images, type of the labels, form of the submission, metric. The default is iMet 2019."""

import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Literal

from inference.manifest.values import Rule, between, is_inside

TaskType = Literal["multilabel", "multiclass", "binary", "regression"]
Layout = Literal["list", "wide", "long"]
Content = Literal["label_id", "label_name", "probability", "number"]
MetricName = Literal["f_beta", "accuracy", "kappa", "map", "roc_auc", "log_loss", "kl_divergence", "rmse"]
Average = Literal["samples", "micro", "macro"]
Activation = Literal["sigmoid", "softmax", "identity"]

PLACEHOLDER = re.compile(r"\{([^{}:]+)(?::([1-9]\d?))?\}")
"""`{id}`, `{id:3}` for its first three characters, or `{COLUMN}` of the table of images."""
ID = "id"
BELOW = "a path below the competition's folder, with / and without .."

Column = Annotated[
    str, Rule("the name of a column, without line breaks", lambda name: re.fullmatch(r".*\S.*", name) is not None)
]
Slug = Annotated[
    str,
    Rule(
        "the competition's name in its URL, of a-z, 0-9 and '-'",
        lambda name: bool(re.fullmatch(r"[a-z0-9][a-z0-9-]*", name)),
    ),
]
CompetitionPath = Annotated[str, Rule(BELOW, is_inside)]
FilePattern = Annotated[
    str,
    Rule(BELOW, lambda text: is_inside(PLACEHOLDER.sub("x", text))),
    Rule("a pattern such as test/{id} or test/{id:3}/{id}.jpg", lambda text: PLACEHOLDER.search(text) is not None),
]
RowPattern = Annotated[
    str,
    Rule(
        "a pattern with {id} and {label}, as in {id}_{label}",
        lambda text: text.count("{id}") == text.count("{label}") == 1,
    ),
]


@dataclass(frozen=True)
class Images:
    """Where the image of an id lies in the competition's folder; implemented in inference/task/image_places.py."""

    path: FilePattern = "test/{id}"
    """Its suffix may be left out if it is not part of the id."""
    table: CompetitionPath | None = None
    """CSV, or JSON in COCO's form, with a row per id and the columns that `path` names; None if it names only {id}."""
    table_id: Column = ID
    """Column of the ids in `table`."""

    @property
    def folder(self) -> str:
        """The folders of `path` before its first placeholder, '.' if there is none."""
        fixed = self.path[: PLACEHOLDER.search(self.path).start()]  # type: ignore[union-attr]
        return str(PurePosixPath(fixed.rpartition("/")[0] or "."))

    @property
    def file(self) -> str:
        """The rest of `path`, relative to `folder`."""
        return self.path if self.folder == "." else self.path[len(self.folder) + 1 :]


@dataclass(frozen=True)
class Form:
    """The form of submission.csv; implemented in inference/task/submission.py."""

    layout: Layout = "list"
    """`list`: one cell of labels per image; `wide`: a column per label; `long`: a row per image and label."""
    content: Content = "label_id"
    """What stands in a cell."""
    column: Column = "attribute_ids"
    """Of the answers in `list` and `long`; the columns of `wide` are named like the labels."""
    separator: Annotated[
        str,
        Rule("one or more characters, no quotes or line breaks", lambda text: bool(re.fullmatch(r"[^\"\r\n]+", text))),
    ] = " "
    """Between the labels of a `list`."""
    top_k: Annotated[int, between(1, 1000, "a whole number from 1 to 1000, or null")] | None = None
    """Number of labels of a `list`, best first; None: those that the decision selects, in the order of their ids."""
    sum_to_one: bool = False
    """The probabilities of an image must add up to 1."""
    row: RowPattern = "{id}_{label}"
    """Ids of the rows of `long`; {label} is the label's name."""

    @property
    def holds_labels(self) -> bool:
        """Return whether the answers are labels, not numbers."""
        return self.content in ("label_id", "label_name")


@dataclass(frozen=True)
class Metric:
    """The metric of the competition; implemented in zoo/metrics."""

    name: MetricName = "f_beta"
    beta: Annotated[float, between(0.01, 100, "a number from 0.01 to 100")] = 2.0
    """Of `f_beta`: how many times as much recall counts as precision."""
    average: Average = "samples"
    """Of `f_beta`: over images, over all pairs of image and label, or over labels."""
    k: Annotated[int, between(1, 1000, "a whole number from 1 to 1000")] = 5
    """Of `map`: how many labels of an image count."""


@dataclass(frozen=True)
class Task:
    """What a competition asks. The default is iMet 2019."""

    competition: Slug = "imet-2019-fgvc6"
    type: TaskType = "multilabel"
    id_column: Column = ID
    sample: CompetitionPath = "sample_submission.csv"
    images: Images = Images()
    submission: Form = Form()
    metric: Metric = Metric()
    value_range: Annotated[
        tuple[float, ...],
        Rule("two ascending numbers", lambda ends: len(ends) == 2 and -math.inf < ends[0] < ends[1] < math.inf),
    ] = (0.0, 1.0)
    """Of `regression`: the values that a network's outputs 0 and 1 stand for."""

    @property
    def activation(self) -> Activation:
        """The last step of a network: from its outputs to scores."""
        return {"multilabel": "sigmoid", "binary": "sigmoid", "multiclass": "softmax", "regression": "identity"}[
            self.type
        ]  # type: ignore[return-value]

    @property
    def has_probabilities(self) -> bool:
        """Return whether scores are probabilities, from 0 to 1."""
        return self.type != "regression"

    @property
    def selects_labels(self) -> bool:
        """Return whether an image's answer is a set of labels of any size."""
        return self.submission.layout == "list" and self.submission.top_k is None

    @property
    def score_dtype(self) -> Literal["float16", "float32"]:
        """numpy's name of the type in which scores are kept; float16 rounds 0.9998 to 1, which log loss punishes."""
        return "float16" if self.submission.holds_labels else "float32"
