"""The value of each member: the F2 that the ensemble loses when the kernel has no time for it."""

from collections.abc import Mapping

import numpy as np

from inference.ensemble.decide import decide
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest, list_members
from inference.manifest.values import View
from training.second_stage.fitted import score_layers
from training.second_stage.judge import Nested, Outer, mix_parts
from training.second_stage.member_scores import MemberScores
from zoo.f2 import score_samples

# Per outer fold; each member needs its own pass, and the trees take a second per hundred images of a large zoo.
IMAGES = 2000


def measure_members(members: MemberScores, labels: Labels, nested: Nested, rule: str) -> dict[str, float]:
    """Measure for each member the mean F2 lost without it; the value may be negative.

    Measured on the first IMAGES held-out images of each outer fold. Nothing is fitted again: as in the kernel, the
    other members fill in the missing scores, and the mix and the rules stay.
    """
    lost = dict.fromkeys(members.names, 0.0)
    images = 0
    for outer in nested.outer:
        judged = members.take(outer.held_out[:IMAGES])
        whole = score_whole(outer, judged, labels, rule)
        for name in lost:
            lost[name] += float((whole - score_whole(outer, judged.leave_out(name), labels, rule)).sum())
        images += len(whole)
    return {name: total / images for name, total in lost.items()}


def score_whole(
    outer: Outer, members: MemberScores, labels: Labels, rule: str
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Score each image with the layers, mix and rules of an outer fold; F2, (images,)."""
    scores = mix_parts(score_layers(outer.layers, members, labels), outer.mix, labels)
    return score_samples(decide(scores, labels, outer.rules.declare(rule)), members.truth)


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
