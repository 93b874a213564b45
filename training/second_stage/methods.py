"""The methods that are judged: a single model, averages of the members, stackers, and their mix."""

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.records import BLEND
from inference.manifest.task import Task
from training.scoring.scores import score_plainly
from training.second_stage.blend_weights import fit_weights
from training.second_stage.fitted import APART, RANKS, TOGETHER, TREES, LayerSettings, Weights, blend_members
from training.second_stage.member_scores import MemberScores
from zoo.metrics.f_beta import find_threshold
from zoo.metrics.scoring import find_scoring, harden_truth

SINGLE, MEAN, BOTH, MIX = "best single model", "mean", "cnn_both", "mix"
MethodScores = dict[str, NDArray[np.float32]]
"""Part or method -> scores, (images, labels)."""


def list_methods(settings: LayerSettings, *, single: bool = True) -> list[str]:
    """List the methods to judge; the mix is last, or the blend if there is no stacker.

    `single`: a single model can be judged, as one held out every image.
    """
    cnns = [APART, *([TOGETHER, BOTH] if settings.together else [])] if settings.cnn else []
    trees = [TREES] if settings.trees else []
    ranks = [RANKS] if settings.ranks else []
    alone = [SINGLE] if single else []
    return [*alone, MEAN, *ranks, BLEND, *cnns, *trees, *([MIX] if cnns or trees else [])]


def score_method(
    method: str, parts: MethodScores, mix: Weights, members: MemberScores, labels: Labels, single: int | None
) -> NDArray[np.float32]:
    """Return the scores of a method, (images, labels); `single`: index of the best single model."""
    if method == SINGLE:
        assert single is not None
        alone = members.scores[:, single].astype(np.float32)
        alone[np.isnan(alone)] = 0
        return alone
    if method == MEAN:
        equal = {
            group: {name: 1.0 for name, groups in zip(members.names, members.covers, strict=True) if group in groups}
            for group in labels.groups
        }
        return blend_members(members, labels, equal)
    if method == BOTH:
        return np.float32(0.5) * (parts[APART] + parts[TOGETHER])
    return mix_parts(parts, mix, labels) if method == MIX else parts[method]


def fit_mix(parts: MethodScores, members: MemberScores, labels: Labels, task: Task) -> dict[str, dict[str, float]]:
    """Fit the weights of the parts of the mix; ranks are no part of it, as the others are scores."""
    names = [name for name in parts if name != RANKS]
    return fit_weights(parts, dict.fromkeys(labels.groups, names), members.truth, labels, task)


def mix_parts(parts: MethodScores, mix: Weights, labels: Labels) -> NDArray[np.float32]:
    """Return the weighted mean of the parts by group, (images, labels)."""
    mixed = np.zeros_like(parts[BLEND])
    for group, weights in mix.items():
        columns = list(labels.columns(group))
        for name, weight in weights.items():
            mixed[:, columns] += np.float32(weight / sum(weights.values())) * parts[name][:, columns]
    return mixed


def choose_single(members: MemberScores, labels: Labels, task: Task) -> int | None:
    """Return the index of the member with the best metric by a plain rule, among those that cover the most groups.

    For F-beta of samples, the rule is one threshold. Only members that held out every image are compared; None: there
    is none.
    """
    whole = members.names if members.coverage is None else members.coverage.whole
    covers = {place: groups for place, groups in enumerate(members.covers) if members.names[place] in whole}
    most = max(map(len, covers.values()), default=0)
    places = [place for place, groups in covers.items() if len(groups) == most]
    sign = 1 if find_scoring(task).higher_is_better else -1

    def measure(place: int) -> float:
        scores = np.nan_to_num(members.scores[:, place].astype(np.float32))
        if task.selects_labels and task.metric.average == "samples":
            return find_threshold(scores, harden_truth(members.truth, task), task.metric.beta)[1]
        return sign * score_plainly(scores, members.truth, labels, task)

    if not places:
        return None
    return max(places, key=measure) if len(places) > 1 else places[0]
