"""The value of each member: by how much the ensemble's metric gets worse when the kernel has no time for it."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.decide import decide
from inference.manifest.labels import Labels
from inference.manifest.model import list_members
from inference.manifest.records import BLEND, Manifest
from inference.manifest.task import Task
from inference.manifest.values import View
from training.scoring.rules import list_rules
from training.second_stage.fitted import RANKS, TREES, Weights, find_unweighed, score_layers
from training.second_stage.judge import Nested, Outer, Pool
from training.second_stage.member_scores import MemberScores
from training.second_stage.methods import mix_parts
from zoo.metrics.scoring import find_scoring
from zoo.metrics.selection import Answers, Truth

# Per outer fold; each member needs its own pass, and the trees take a second per hundred images of a large zoo.
IMAGES = 2000


def measure_members(
    members: MemberScores, labels: Labels, task: Task, nested: Nested, method: str, rule: str
) -> dict[str, float]:
    """Measure for each member by how much the metric is worse without it; the value may be negative.

    `method`: the mix, the blend or the rank mean, decided by `rule`. Measured on the first IMAGES held-out images of
    each outer fold. Nothing is fitted again: as in the kernel, the other members fill in the missing scores, and the
    mix and the rules stay. A member that held out only a part of the images is measured on those that others held out
    too, as the kernel has the scores of all members for each image; if there are none, on all that it held out.
    """
    judged = [members.take(outer.held_out[:IMAGES]) for outer in nested.outer]
    whole = [answer_whole(outer, part, labels, method, rule) for outer, part in zip(nested.outer, judged, strict=True)]
    values = {}
    for name in members.names:
        chosen = [find_compared(outer, part, labels, name) for outer, part in zip(nested.outer, judged, strict=True)]
        unshared = not any(part.any() for part in chosen)
        if unshared:
            chosen = [part.list_held_out(name) for part in judged]
        without = []
        for outer, part in zip(nested.outer, judged, strict=True):
            if not task.selects_labels and (unshared or is_alone(outer, name)):
                prior = np.delete(members.truth, outer.held_out, axis=0).mean(axis=0)
                answers = answer_without_scores(outer, prior, labels, rule)
                without.append(np.broadcast_to(answers, part.truth.shape))
            else:
                without.append(answer_whole(outer, part.leave_out(name), labels, method, rule))
        truth = [part.truth[rows] for part, rows in zip(judged, chosen, strict=True)]
        pair = [[part[rows] for part, rows in zip(given, chosen, strict=True)] for given in (whole, without)]
        values[name] = compare_answers(pair[0], pair[1], truth, task)
    return values


def find_compared(outer: Outer, members: MemberScores, labels: Labels, name: str) -> NDArray[np.bool_]:
    """Return the images that a member held out, and others with a weight in its groups too, if there are any."""
    compared = members.list_held_out(name)
    if compared.all() and members.coverage is None:
        return compared
    for group in members.covers[members.names.index(name)]:
        weights = outer.layers.weights[group]
        others = {other: weight for other, weight in weights.items() if other != name and weight > 0}
        if others:
            compared = compared & ~find_unweighed(members, others)
    return compared


def compare_answers(whole: Sequence[Answers], without: Sequence[Answers], truth: Sequence[Truth], task: Task) -> float:
    """Return by how much the metric of `whole` is better than that of `without`; each by outer fold, (rows, labels)."""
    scoring, true = find_scoring(task), np.concatenate(truth)
    if not len(true):
        return 0.0
    starts = np.cumsum([0, *map(len, truth)])
    pools = []
    for answers in (whole, without):
        pool = Pool(task, true)
        for start, part in zip(starts[:-1], answers, strict=True):
            pool.add(np.arange(start, start + len(part)), part)
        pools.append(pool.summarise())
    if scoring.is_mean:
        sign = 1 if scoring.higher_is_better else -1
        lost = np.split(pools[0] - pools[1], starts[1:-1])
        return sign * sum(float(part.sum()) for part in lost) / len(true)
    return scoring.find_gain(*map(scoring.total, pools))


def measure_features(members: MemberScores, nested: Nested, mix: Weights, method: str, rule: str, task: Task) -> float:
    """Measure by how much the metric is worse without a member of group 'features': the blend then decides.

    The same for each of them, because the trees need all. `mix`: the final one; `rule`: of `method`. 0 if the trees
    have no weight, or read no features.
    """
    used = any(weights.get(TREES, 0) > 0 for weights in mix.values())
    if not (used and members.stacked_features):
        return 0.0
    scoring, blend = find_scoring(task), nested.pools[BLEND, list_rules(task)[-1]]
    return scoring.find_gain(*(scoring.total(pool.summarise()) for pool in (nested.pools[method, rule], blend)))


def answer_whole(outer: Outer, members: MemberScores, labels: Labels, method: str, rule: str) -> Answers:
    """Return the answers by the layers, mix and rules of an outer fold, (images, labels)."""
    parts = score_layers(outer.layers, members, labels)
    scores: NDArray[np.float32] = parts[RANKS] if method == RANKS else mix_parts(parts, outer.mix, labels)
    return decide(scores, labels, outer.rules[rule])


def is_alone(outer: Outer, name: str) -> bool:
    """Return whether no other member has a weight in the blend of an outer fold: the kernel runs none of the others."""
    weights = outer.layers.weights.values()
    return all(weight == 0 for given in weights for other, weight in given.items() if other != name)


def answer_without_scores(outer: Outer, prior: NDArray[np.float64], labels: Labels, rule: str) -> Answers:
    """Return the answer to an image without scores, (1, labels), as in the kernel; `prior`: scores, (labels,)."""
    decision = dataclasses.replace(outer.rules[rule], prior_scores=tuple(map(float, prior)))
    return decide(np.full((1, len(prior)), np.nan, np.float32), labels, decision)


def divide_values(values: Mapping[str, float], manifest: Manifest) -> dict[str, dict[View, float]]:
    """Divide each member's value equally over its models and views, for `ensemble.values` of the manifest.

    Each out-of-fold score is from one fold's model and is the mean over its views, so the value of a single fold or
    view cannot be measured.
    """
    divided = {}
    for name, models in list_members(manifest.models).items():
        passes = sum(len(model.views) for model in models)
        for model in models:
            divided[model.name] = {view: round(values[name] / passes, 6) for view in model.views}
    return divided
