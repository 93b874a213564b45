"""The method and the rule with the best nested figures, fitted to all images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.records import BLEND
from inference.manifest.task import Task
from training.second_stage.findings import Judged, judge_all, judge_rules
from training.second_stage.fitted import RANKS, Layers, Weights
from training.second_stage.judge import Nested, Rules, fit_all_rules
from training.second_stage.member_scores import MemberScores
from training.second_stage.methods import fit_mix, mix_parts
from zoo.metrics.scoring import find_scoring

# In the mix of a group: a smaller weight is not worth the part's run time in the kernel.
SMALLEST_WEIGHT = 0.02


@dataclass(frozen=True)
class Final:
    """The chosen method and rule, fitted to all images."""

    method: str
    rule: str
    methods: tuple[Judged, ...]
    """How they were chosen."""
    judged_rules: tuple[Judged, ...]
    weights: Weights
    """Of the members in the blend, of scores or of ranks."""
    scales: Mapping[str, tuple[float, ...]]
    """By member, its scores at equally spaced ranks; empty for a blend of scores."""
    mix: Weights
    """Of the parts; empty for a method that is no mix of scores."""
    scores: NDArray[np.float32]
    """Out of fold, (images, labels)."""
    rules: Mapping[str, Rules]
    """Of the blend and of `method`."""


def fit_final(nested: Nested, layers: Layers, members: MemberScores, labels: Labels, task: Task) -> Final:
    """Choose the method and the rule by the nested figures, and fit the mix and the rules to all images.

    The method is the mix, or the blend without stackers, or the mean of ranks if that is better. `layers`: fitted to
    all images.
    """
    judged = judge_all(nested, task)
    sign = 1 if find_scoring(task).higher_is_better else -1
    method = judged[-1].name
    if layers.ranks:
        figures = {one.name: sign * one.score for one in judged}
        method = RANKS if figures[RANKS] > figures[method] else method
    decided = judge_rules(nested, method, task)
    rule = max(decided, key=lambda one: sign * one.score).name
    weights, scales, mix = layers.weights, dict[str, tuple[float, ...]](), dict[str, dict[str, float]]()
    scores = {BLEND: nested.parts[BLEND]}
    if method == RANKS and layers.ranks:
        weights, scales, scores[method] = layers.ranks.weights, dict(layers.ranks.scales), nested.parts[RANKS]
    else:
        mix = drop_small(fit_mix(nested.parts, members, labels, task))
        scores[method] = mix_parts(nested.parts, mix, labels)
    rules = {name: fit_all_rules(part, members.truth, labels, task) for name, part in scores.items()}
    return Final(method, rule, judged, decided, weights, scales, mix, scores[method], rules)


def drop_small(mix: Weights) -> dict[str, dict[str, float]]:
    """Remove parts with a weight below SMALLEST_WEIGHT from the mix."""
    return {
        group: {name: weight for name, weight in weights.items() if weight >= SMALLEST_WEIGHT}
        for group, weights in mix.items()
    }
