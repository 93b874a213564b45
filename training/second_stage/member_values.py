"""What each model of the ensemble is worth: the F2 that the whole loses when a kernel has no time for it."""

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

# Of each outer fold; the trees take a second for a hundred images of a large zoo, and there are many members.
IMAGES = 2000


def measure_members(evidence: MemberScores, labels: Labels, nested: Nested, rule: str) -> dict[str, float]:
    """For each member, the mean F2 that is lost without it on images held out by the outer folds; it may be negative.

    Nothing is fitted again: as in the kernel, the member's scores are filled by the others', and the mix and the rules
    stay. On the first IMAGES images of each outer fold.
    """
    lost = dict.fromkeys(evidence.members, 0.0)
    images = 0
    for outer in nested.outer:
        judged = evidence.take(outer.held_out[:IMAGES])
        whole = score_whole(outer, judged, labels, rule)
        for member in lost:
            lost[member] += float((whole - score_whole(outer, judged.leave_out(member), labels, rule)).sum())
        images += len(whole)
    return {member: total / images for member, total in lost.items()}


def score_whole(
    outer: Outer, evidence: MemberScores, labels: Labels, rule: str
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """F2 of each image by the layers, mix and rules of an outer fold."""
    scores = mix_parts(score_layers(outer.layers, evidence, labels), outer.mix, labels)
    return score_samples(decide(scores, labels, outer.rules.declare(rule)), evidence.truth)


def divide_values(values: Mapping[str, float], manifest: Manifest) -> dict[str, dict[View, float]]:
    """A member's value over its models and their views, in equal parts: for `ensemble.values` of the manifest.

    Out of fold, one model of a member has predicted each image, by the mean of its views: what one fold or one view
    alone is worth cannot be told apart from that.
    """
    divided = {}
    for member, models in list_members(manifest.models).items():
        passes = sum(len(model.views) for model in models)
        for model in models:
            divided[model.name] = {view: round(values[member] / passes, 6) for view in model.views}
    return divided
