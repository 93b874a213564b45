"""The value of each member: by how much the ensemble's metric gets worse when the kernel has no time for it."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.decide import decide
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest, list_members
from inference.manifest.task import Task
from inference.manifest.values import View
from training.second_stage.fitted import RANKS, score_layers
from training.second_stage.judge import Nested, Outer, Pool
from training.second_stage.member_scores import MemberScores
from training.second_stage.methods import mix_parts
from zoo.metrics.scoring import find_scoring
from zoo.metrics.selection import Answers

# Per outer fold; each member needs its own pass, and the trees take a second per hundred images of a large zoo.
IMAGES = 2000


def measure_members(
    members: MemberScores, labels: Labels, task: Task, nested: Nested, method: str, rule: str
) -> dict[str, float]:
    """Measure for each member by how much the metric is worse without it; the value may be negative.

    `method`: the mix, the blend or the rank mean, decided by `rule`. Measured on the first IMAGES held-out images of
    each outer fold. Nothing is fitted again: as in the kernel, the other members fill in the missing scores, and the
    mix and the rules stay.
    """
    scoring = find_scoring(task)
    rows = np.concatenate([outer.held_out[:IMAGES] for outer in nested.outer])
    whole, others = Pool(task, members.truth[rows]), {name: Pool(task, members.truth[rows]) for name in members.names}
    starts = [0]
    for outer in nested.outer:
        judged = members.take(outer.held_out[:IMAGES])
        places = np.arange(starts[-1], starts[-1] + len(judged.rows))
        whole.add(places, answer_whole(outer, judged, labels, method, rule))
        prior = np.delete(members.truth, outer.held_out, axis=0).mean(axis=0)
        for name, pool in others.items():
            if not task.selects_labels and is_alone(outer, name):
                pool.add(places, np.broadcast_to(answer_without_scores(outer, prior, labels, rule), judged.truth.shape))
            else:
                pool.add(places, answer_whole(outer, judged.leave_out(name), labels, method, rule))
        starts.append(starts[-1] + len(places))
    summary = whole.summarise()
    if scoring.is_mean:
        sign = 1 if scoring.higher_is_better else -1
        lost = {name: np.split(summary - pool.summarise(), starts[1:-1]) for name, pool in others.items()}
        return {name: sign * sum(float(part.sum()) for part in parts) / len(rows) for name, parts in lost.items()}
    figure = scoring.total(summary)
    return {name: scoring.find_gain(figure, scoring.total(pool.summarise())) for name, pool in others.items()}


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
