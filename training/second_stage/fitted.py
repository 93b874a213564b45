"""The layers: blend, CNN stackers and trees, fitted to the members' scores and applied to other images."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.model import ALL
from inference.manifest.records import BLEND
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
    trees = None
    if settings.cnn or settings.trees:
        known = find_readable(members, labels)
        own = take_some(members, known)
        for group in (*labels.groups, *([ALL] if settings.together else [])) if settings.cnn else ():
            scores, truth = take_group(own, labels, group), own.truth[:, labels.columns(group)]
            title = f"{purpose}, CNN of {group}"
            cnns[group] = fit_cnn(scores, truth, CnnSettings(exclusive=exclusive), settings.seed, title=title)
        if settings.trees:
            whole = take_some(members, known & has_features(members, members.stacked_features))
            trees = fit_pairs(whole, labels, weights, settings.seed, exclusive=exclusive)
    return Layers(weights, cnns, trees, fit_ranks(members, labels, task) if settings.ranks else None)


def score_layers(layers: Layers, members: MemberScores, labels: Labels) -> dict[str, NDArray[np.float32]]:
    """Return the scores of each part, (images, labels); a missing member has NaN.

    Same method as the kernel (inference/ensemble/second_stage.py), but with torch and LightGBM. An image that no member
    of the stackers held out has the scores of the blend.
    """
    blended = blend_members(members, labels, layers.weights)
    scored = {BLEND: blended}
    if layers.ranks:
        scored[RANKS] = blend_members(rank_members(members, layers.ranks.scales), labels, layers.ranks.weights)
    if not (layers.cnns or layers.trees):
        return scored
    known = find_readable(members, labels)
    own = take_some(members, known)
    if layers.cnns:
        scored[APART] = blended.copy()
    for group, cnn in layers.cnns.items():
        part = scored.setdefault(TOGETHER, blended.copy()) if group == ALL else scored[APART]
        part[np.ix_(np.flatnonzero(known), np.array(labels.columns(group)))] = predict_cnn(
            cnn, take_group(own, labels, group)
        )
    if layers.trees:
        known = known & has_features(members, [name for name, _ in layers.trees.features])
        scored[TREES] = blended.copy()
        scored[TREES][known] = score_pairs(layers.trees, take_some(members, known), labels, blended[known])
    return scored


def find_readable(members: MemberScores, labels: Labels) -> NDArray[np.bool_]:
    """Return which images a member of the stackers held out for every group, (rows,)."""
    if members.coverage is None:
        return np.ones(len(members.rows), np.bool_)
    held_out = members.coverage.held_out
    known = [held_out[:, list_stacked(members, labels, group)].any(axis=1) for group in labels.groups]
    readable: NDArray[np.bool_] = np.all(known, axis=0)
    return readable


def has_features(members: MemberScores, names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which images all of these members of group 'features' held out, (rows,)."""
    known = np.ones(len(members.rows), np.bool_)
    for name in names:
        known &= members.list_held_out(name)
    return known


def take_some(members: MemberScores, known: NDArray[np.bool_]) -> MemberScores:
    """Select images; all of them need no copy."""
    return members if known.all() else members.take(np.flatnonzero(known))


def take_group(members: MemberScores, labels: Labels, group: str) -> NDArray[np.floating[Any]]:
    """Select the input of a group's CNN, (images, members that cover the group, labels of the group)."""
    return members.scores[:, list_stacked(members, labels, group)][:, :, labels.columns(group)]


def list_stacked(members: MemberScores, labels: Labels, group: str) -> list[int]:
    """List the indices of the members that cover a group and are read by stackers; of all of these for ALL."""
    return [place for place in list_places(members, labels, group) if members.names[place] in members.stacked]


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
    """Return the weighted mean of the members that have a score, (images, labels); 0 if none has.

    An image that only members of weight 0 held out has their mean: in the kernel, the others have scores of it.
    """
    blended = np.zeros((len(members.rows), len(labels.ids)), np.float32)
    for group, given in weights.items():
        columns = np.array(labels.columns(group))
        total = np.zeros((len(blended), len(columns)), np.float32)
        summed = np.zeros_like(total)
        alone = find_unweighed(members, given)
        for name, weight in given.items():
            scores = members.scores[:, members.names.index(name)][:, columns].astype(np.float32)
            there = np.where(alone, np.float32(1), np.float32(weight))[:, None] * ~np.isnan(scores)
            total += there
            summed += there * np.nan_to_num(scores)
        blended[:, columns] = summed / np.maximum(total, np.finfo(np.float32).tiny)
    return blended


def find_unweighed(members: MemberScores, given: Mapping[str, float]) -> NDArray[np.bool_]:
    """Return which images no member with a weight held out, (rows,); `given`: the weights of a group."""
    held_out = np.zeros(len(members.rows), np.bool_)
    for name, weight in given.items():
        if weight > 0:
            held_out |= members.list_held_out(name)
    return ~held_out
