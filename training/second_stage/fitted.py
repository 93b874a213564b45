"""The layers: blend, CNN stackers and trees, fitted to the members' scores and applied to other images."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.records import ALL, BLEND
from inference.manifest.task import Task
from training.second_stage.blend_weights import fit_weights
from training.second_stage.member_scores import MemberScores
from training.second_stage.stackers.cnn import CnnSettings, CnnStacker, fit_cnn, predict_cnn
from training.second_stage.stackers.trees import PairStacker, fit_pairs, score_pairs

APART, TOGETHER, TREES, RANKS = "cnn_apart", "cnn_all", "trees", "rank mean"
SCALE_POINTS = 64
"""Scores per member from which ranks are interpolated."""
Weights = Mapping[str, Mapping[str, float]]
"""Group -> member or part -> weight."""


@dataclass(frozen=True)
class LayerSettings:
    """What to fit beside the blend, and the seed."""

    cnn: bool = True
    """A CNN for each group."""
    together: bool = True
    """And one for all labels."""
    trees: bool = True
    ranks: bool = False
    """A blend of ranks instead of scores."""
    seed: int = 0


@dataclass(frozen=True)
class RankBlend:
    """The blend that averages ranks."""

    scales: Mapping[str, tuple[float, ...]]
    """By member, its scores at equally spaced ranks."""
    weights: Weights


@dataclass(frozen=True)
class Layers:
    """The blend and the stackers, fitted to the same images."""

    weights: Weights
    """Of the blend, by group and member."""
    cnns: Mapping[str, CnnStacker]
    """By group, and one for all labels under ALL."""
    trees: PairStacker | None
    ranks: RankBlend | None = None


def fit_layers(members: MemberScores, labels: Labels, task: Task, settings: LayerSettings, purpose: str) -> Layers:
    """Fit all layers; `purpose` is shown in the progress bar."""
    weights = fit_blend(members, labels, task)
    exclusive = task.type == "multiclass"
    cnns = {}
    for group in (*labels.groups, *([ALL] if settings.together else [])) if settings.cnn else ():
        own, columns = take_group(members, labels, group), labels.columns(group)
        title = f"{purpose}, CNN of {group}"
        truth = members.truth[:, columns]
        cnns[group] = fit_cnn(own, truth, CnnSettings(exclusive=exclusive), settings.seed, title=title)
    trees = fit_pairs(members, labels, weights, settings.seed, exclusive=exclusive) if settings.trees else None
    return Layers(weights, cnns, trees, fit_ranks(members, labels, task) if settings.ranks else None)


def score_layers(layers: Layers, members: MemberScores, labels: Labels) -> dict[str, NDArray[np.float32]]:
    """Return the scores of each part, (images, labels); a missing member has NaN.

    Same method as the kernel (inference/ensemble/second_stage.py), but with torch and LightGBM.
    """
    blended = blend_members(members, labels, layers.weights)
    scored = {BLEND: blended}
    if layers.ranks:
        scored[RANKS] = blend_members(rank_members(members, layers.ranks.scales), labels, layers.ranks.weights)
    if layers.cnns:
        scored[APART] = np.zeros_like(blended)
    for group, cnn in layers.cnns.items():
        found = predict_cnn(cnn, take_group(members, labels, group))
        if group == ALL:
            scored[TOGETHER] = found
        else:
            scored[APART][:, labels.columns(group)] = found
    if layers.trees:
        scored[TREES] = score_pairs(layers.trees, members, labels, blended)
    return scored


def take_group(members: MemberScores, labels: Labels, group: str) -> NDArray[np.floating[Any]]:
    """Select the input of a group's CNN, (images, members that cover the group, labels of the group)."""
    return members.scores[:, list_places(members, labels, group)][:, :, labels.columns(group)]


def list_places(members: MemberScores, labels: Labels, group: str) -> list[int]:
    """List the indices of the members that cover a group; of all members for ALL."""
    return [place for place, groups in enumerate(members.covers) if group == ALL or group in groups]


def fit_blend(members: MemberScores, labels: Labels, task: Task) -> dict[str, dict[str, float]]:
    """Fit the weights of the members, by group."""
    scores = {name: members.scores[:, place] for place, name in enumerate(members.names)}
    covers = {group: [members.names[place] for place in list_places(members, labels, group)] for group in labels.groups}
    return fit_weights(scores, covers, members.truth, labels, task)


def fit_ranks(members: MemberScores, labels: Labels, task: Task) -> RankBlend:
    """Fit the blend of ranks: the scale of each member over all its scores, then the weights."""
    scales = {name: find_scale(members.scores[:, place]) for place, name in enumerate(members.names)}
    return RankBlend(scales, fit_blend(rank_members(members, scales), labels, task))


def find_scale(scores: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    """Return the scores at SCALE_POINTS equally spaced ranks, ascending; `scores`: any shape, NaN is ignored."""
    known = scores[~np.isnan(scores)].astype(np.float64)
    points = np.quantile(known, np.linspace(0, 1, SCALE_POINTS))
    # Nine digits distinguish any two float32.
    return tuple(float(f"{point:.9g}") for point in points)


def rank_members(members: MemberScores, scales: Mapping[str, tuple[float, ...]]) -> MemberScores:
    """Replace scores by ranks from 0 to 1, as the kernel does (rank_scores in inference/ensemble/blend.py)."""
    ranked = np.empty(members.scores.shape, np.float32)
    for place, name in enumerate(members.names):
        scale = scales[name]
        ranked[:, place] = np.interp(members.scores[:, place], scale, np.linspace(0, 1, len(scale)))  # NaN stays NaN
    return dataclasses.replace(members, scores=ranked)


def blend_members(members: MemberScores, labels: Labels, weights: Weights) -> NDArray[np.float32]:
    """Return the weighted mean of the members that have a score, (images, labels); 0 if none has."""
    blended = np.zeros((len(members.rows), len(labels.ids)), np.float32)
    for group, given in weights.items():
        columns = np.array(labels.columns(group))
        total = np.zeros((len(blended), len(columns)), np.float32)
        summed = np.zeros_like(total)
        for name, weight in given.items():
            scores = members.scores[:, members.names.index(name)][:, columns].astype(np.float32)
            there = np.float32(weight) * ~np.isnan(scores)
            total += there
            summed += there * np.nan_to_num(scores)
        blended[:, columns] = summed / np.maximum(total, np.finfo(np.float32).tiny)
    return blended
