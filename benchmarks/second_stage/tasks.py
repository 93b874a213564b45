"""The second stage of each kind of task, on variants of the demo dataset: each decision rule against the plainest.

python -m benchmarks.second_stage.tasks build/demo/museum/train.csv        a table of nested figures with intervals

The scores are the out-of-fold scores of the demo's three networks. The variants with one label, a grade or a number
follow from the tags: their scores are normalised, counted or summed.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.manifest.file import MANIFEST_NAME
from inference.manifest.labels import Labels
from inference.manifest.task import Form, Metric, Task
from training.second_stage.findings import Judged, judge_all, judge_rules
from training.second_stage.fitted import LayerSettings
from training.second_stage.judge import judge_methods
from training.second_stage.member_scores import MemberScores, gather_scores
from training.second_stage.stackers.suited import choose_layers
from zoo.metrics.scoring import find_scoring
from zoo.tables.out_of_fold import open_zoo
from zoo.tables.train_table import read_table
from zoo.text import align_columns

FOLDS = 3
GRADES = 4  # 1, 2, 3, 4 or more tags
NUMBERS = Form("wide", "probability")
SUMS = Form("wide", "probability", sum_to_one=True)
BEST = Form("list", "label_name", "label", top_k=1)
WHOLE = (
    Metric(),
    Metric(beta=1.0),
    Metric(beta=0.5),
    Metric(beta=1.0, average="micro"),
    Metric(beta=1.0, average="macro"),
)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One kind of task with its scores and truth."""

    name: str
    task: Task
    labels: Labels
    members: MemberScores


def list_variants(members: MemberScores, labels: Labels) -> Iterator[Variant]:
    """Yield the variants of the demo dataset."""
    for metric in WHOLE:
        yield Variant("several labels", Task(metric=metric), labels, members)
    for name in ("roc_auc", "log_loss"):
        yield Variant("a probability per label", Task(submission=NUMBERS, metric=Metric(name)), labels, members)  # type: ignore[arg-type]
    tags = take_tags(members, labels)
    one, names = take_single(tags), make_labels([labels.names[column] for column in labels.groups["tag"]])
    ranked = dataclasses.replace(BEST, top_k=3)
    for form, metric in (
        (BEST, Metric("accuracy")),
        (BEST, Metric(beta=1.0, average="macro")),
        (ranked, Metric("map", k=3)),
        (SUMS, Metric("log_loss")),
    ):
        yield Variant("one label", Task(type="multiclass", submission=form, metric=metric), names, one)
    grades = make_labels([str(grade) for grade in range(GRADES)])
    yield Variant("a grade", Task(type="multiclass", submission=BEST, metric=Metric("kappa")), grades, grade(tags))
    shown = int(tags.truth.sum(axis=0).argsort()[len(tags.truth[0]) // 2])  # of middle frequency
    binary = dataclasses.replace(tags, scores=tags.scores[:, :, [shown]], truth=tags.truth[:, [shown]])
    for name in ("roc_auc", "log_loss"):
        task = Task(type="binary", submission=NUMBERS, metric=Metric(name))  # type: ignore[arg-type]
        yield Variant("one probability", task, make_labels([names.names[shown]]), binary)
    number = Task(type="regression", submission=Form("wide", "number"), metric=Metric("rmse"), value_range=(0.0, 10.0))
    yield Variant("a number", number, make_labels(["price"]), price(tags))


def make_labels(names: list[str]) -> Labels:
    """Return labels of one group."""
    return Labels(tuple(range(len(names))), tuple(names), {"labels": tuple(range(len(names)))})


def take_tags(members: MemberScores, labels: Labels) -> MemberScores:
    """Return the scores and truth of the tags, of the members that cover them."""
    places = [place for place, groups in enumerate(members.covers) if "tag" in groups]
    columns = list(labels.groups["tag"])
    return dataclasses.replace(
        members,
        names=tuple(members.names[place] for place in places),
        covers=(("labels",),) * len(places),
        scores=members.scores[:, places][:, :, columns].astype(np.float32),
        truth=members.truth[:, columns],
    )


def take_single(tags: MemberScores) -> MemberScores:
    """Return the images with one tag; the scores of an image add up to 1."""
    found = tags.take(np.flatnonzero(tags.truth.sum(axis=1) == 1))
    scores = found.scores.astype(np.float64)
    return dataclasses.replace(found, scores=(scores / scores.sum(axis=2, keepdims=True)).astype(np.float32))


def grade(tags: MemberScores) -> MemberScores:
    """Return the number of tags as ordered classes; the scores are those of independent tags."""
    scores = np.stack([count_distribution(tags.scores[:, place]) for place in range(len(tags.names))], axis=1)
    grades = np.clip(tags.truth.sum(axis=1), 1, GRADES) - 1
    return dataclasses.replace(tags, scores=scores.astype(np.float32), truth=np.eye(GRADES, dtype=np.bool_)[grades])


def count_distribution(chances: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the distribution of the number of true labels, 1 or fewer to GRADES or more, (images, GRADES)."""
    counts = np.zeros((len(chances), chances.shape[1] + 1))
    counts[:, 0] = 1
    for chance in chances.T.astype(np.float64):
        moved = counts[:, :-1] * chance[:, None]
        counts[:, :-1] -= moved
        counts[:, 1:] += moved
    return np.column_stack([counts[:, :2].sum(axis=1), *counts[:, 2:GRADES].T, counts[:, GRADES:].sum(axis=1)])


def price(tags: MemberScores) -> MemberScores:
    """Return a number per image: the sum of its tags' prices, 1 to 3, in units of the range."""
    prices = 1 + np.arange(tags.scores.shape[2]) % 3
    scores = (tags.scores @ prices)[:, :, None] / 10
    return dataclasses.replace(tags, scores=scores.astype(np.float32), truth=(tags.truth @ prices)[:, None] / 10)


def judge_variant(variant: Variant, cnn: bool) -> tuple[tuple[Judged, ...], tuple[Judged, ...]]:
    """Judge the methods and the last method's rules of a variant in nested folds."""
    members, labels, task = variant.members, variant.labels, variant.task
    layers, _ = choose_layers(LayerSettings(cnn=cnn), task, labels, len(members.rows), len(members.names))
    nested = judge_methods(members, labels, task, layers, FOLDS, lambda line: None)
    methods = judge_all(nested, task)
    return methods, judge_rules(nested, methods[-1].name, task)


def show(one: Judged) -> tuple[str, str, str]:
    """Return the figure, the gain and its interval as text."""
    return f"{one.score:.4f}", f"{one.gain:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}"


def main() -> None:
    """Print a table of each variant's methods and rules."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="train.csv of the demo dataset")
    parser.add_argument("--cnn", action="store_true", help="also fit the stackers, which takes minutes per variant")
    given = parser.parse_args()
    zoo = open_zoo(Path(MANIFEST_NAME))
    members = gather_scores(zoo, read_table(given.train, zoo.labels, zoo.manifest.task))
    rows = [("task", "metric", "method or rule", "figure", "gain", "95 % interval")]
    for variant in list_variants(members, zoo.labels):
        methods, rules = judge_variant(variant, given.cnn)
        title = find_scoring(variant.task).title
        rows += [(variant.name, title, f"method {one.name}", *show(one)) for one in methods]
        rows += [(variant.name, title, f"rule {one.name}", *show(one)) for one in rules]
    print("\n".join(align_columns(rows, left=3)))


if __name__ == "__main__":
    main()
