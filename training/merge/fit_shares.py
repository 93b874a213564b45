"""The weights of kept second stages in their mean, and its decision, fitted to images that all of them held out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.basics.files import read_text
from inference.ensemble.decide import decide
from inference.manifest.decision import Decision
from inference.manifest.file import verify_files
from inference.manifest.labels import Labels
from inference.manifest.model import ALL
from inference.manifest.task import Task
from training.merge.join_models import load_array
from training.merge.keep_stages import Shares
from training.merge.sources import Source
from training.scoring.halves import HALVES
from training.scoring.rules import fit_richest
from training.second_stage.blend_weights import fit_weights
from training.second_stage.judge import fit_all_rules, list_all_rules
from zoo.metrics.scoring import find_scoring
from zoo.metrics.selection import Truth
from zoo.tables.out_of_fold import split_lines
from zoo.tables.train_table import Table

Floats = NDArray[np.float32]
EQUAL, FITTED = "equal weights", "fitted weights"
LEAST_IMAGES = 4
Weigh = Callable[[Mapping[str, Floats], Truth], Shares]


@dataclass(frozen=True)
class CommonImages:
    """The scores of all second stages of the images that each of them held out."""

    rows: NDArray[np.int64]
    """Rows of the images in train.csv, ascending."""
    scores: Mapping[str, Floats]
    """Tag of a zoo -> (images, labels), in the team's order."""
    truth: Truth
    """(images, labels), as `Table.targets`."""


@dataclass(frozen=True)
class FittedMean:
    """The mean of the second stages."""

    shares: Shares
    rule: str
    rules: Mapping[str, Decision]
    """By name, fitted to `scores`."""
    scores: Floats
    """Out of fold, (images, labels)."""
    figures: Mapping[str, float]
    """The metric of each second stage alone, of equal and of fitted weights, cross-fitted in halves."""


def gather_common(sources: Sequence[Source], table: Table) -> CommonImages:
    """Read the out-of-fold scores of the second stages. Raises TrainingError or ManifestError naming the zoo."""
    places = {image: place for place, image in enumerate(table.ids)}
    found: dict[str, tuple[dict[int, int], Floats]] = {}
    common = set(range(len(table.ids)))
    for source in sources:
        declared, path = source.zoo.manifest.ensemble.out_of_fold, source.zoo.path
        if declared is None:
            raise TrainingError(
                f"{path}: `ensemble.out_of_fold`: missing; run `build_kernel.py ensemble --manifest {path}` first, or "
                "give the weights of the zoos with --weights"
            )
        key = "ensemble.out_of_fold"
        verify_files([(f"{key}.scores", declared.scores), (f"{key}.ids", declared.ids)], source.zoo.home)
        ids = split_lines(read_text(source.zoo.home / declared.ids.file))
        strange = next((image for image in ids if image not in places), None)
        if strange is not None:
            raise TrainingError(f"{path}: `{key}.ids`: image {strange} is missing in train.csv; check --train")
        own = source.match.own
        scores = load_array(source.zoo.home / declared.scores.file, len(own.ids))[:, list(source.match.order(ALL))]
        rows = {places[image]: place for place, image in enumerate(ids)}
        found[source.tag] = rows, scores.astype(np.float32)
        common &= rows.keys()
    if len(common) < LEAST_IMAGES:
        raise TrainingError(
            f"merge: found {len(common)} images that the second stages of all zoos held out; wanted thousands, and at "
            f"least {LEAST_IMAGES}; give the weights of the zoos with --weights"
        )
    kept = np.array(sorted(common))
    taken = {tag: part[[rows[row] for row in kept.tolist()]] for tag, (rows, part) in found.items()}
    return CommonImages(kept, taken, table.targets[kept])


def fit_mean(
    common: CommonImages, sources: Sequence[Source], given: Shares | None, labels: Labels, task: Task
) -> FittedMean:
    """Fit the weights of the zoos in each group, or take the `given` ones, and the decision rules of their mean.

    Zoos are taken in the order of their names, so that the result does not depend on whose zoo is the first.
    """
    covers = {
        group: sorted(source.tag for source in sources if source.covers(group) and source.share > 0)
        for group in labels.groups
    }

    def weigh(scores: Mapping[str, Floats], truth: Truth) -> Shares:
        return given or fit_weights(scores, covers, truth, labels, task)

    equal = {group: {tag: 1 / len(tags) for tag in tags} for group, tags in covers.items()}
    figures = {
        tag: cross_fit(common, fix({group: {tag: 1.0} for group in labels.groups}), labels, task)
        for tag in sorted(common.scores)
    }
    figures[EQUAL] = cross_fit(common, fix(equal), labels, task)
    figures["given weights" if given else FITTED] = cross_fit(common, weigh, labels, task)
    shares = weigh(common.scores, common.truth)
    mean = average(common.scores, shares, labels)
    rule = choose_rule(mean, common.truth, labels, task)
    return FittedMean(shares, rule, fit_all_rules(mean, common.truth, labels, task), mean, figures)


def average(scores: Mapping[str, Floats], shares: Shares, labels: Labels) -> Floats:
    """Return the weighted mean of the zoos' scores, (images, labels)."""
    mean = np.zeros_like(next(iter(scores.values())))
    for group, given in shares.items():
        columns = np.array(labels.columns(group))
        for tag, share in given.items():
            mean[:, columns] += np.float32(share / sum(given.values())) * scores[tag][:, columns]
    return mean


def fix(shares: Shares) -> Weigh:
    """Return a way to weigh that fits nothing."""
    return lambda scores, truth: shares


def cross_fit(common: CommonImages, weigh: Weigh, labels: Labels, task: Task) -> float:
    """Return the metric of a way to weigh; each half by weights and the richest rule fitted to the other half."""
    answers: NDArray[Any] | None = None
    for fitted, judged in (HALVES, HALVES[::-1]):
        shares = weigh({tag: part[fitted] for tag, part in common.scores.items()}, common.truth[fitted])
        mean = average(common.scores, shares, labels)
        part = decide(mean[judged], labels, fit_richest(task, mean[fitted], common.truth[fitted], labels))
        answers = np.empty(mean.shape, part.dtype) if answers is None else answers
        answers[judged] = part
    assert answers is not None
    return find_scoring(task).score(answers, common.truth)


def choose_rule(mean: Floats, truth: Truth, labels: Labels, task: Task) -> str:
    """Return the name of the rule with the best metric; each half by the rule fitted to the other half."""
    scoring = find_scoring(task)
    answers: dict[str, NDArray[Any]] = {}
    for fitted, judged in (HALVES, HALVES[::-1]):
        rules = fit_all_rules(mean[fitted], truth[fitted], labels, task)
        for name in list_all_rules(task):
            part = decide(mean[judged], labels, rules[name])
            answers.setdefault(name, np.empty(mean.shape, part.dtype))[judged] = part
    sign = 1 if scoring.higher_is_better else -1
    return max(answers, key=lambda name: sign * scoring.score(answers[name], truth))
