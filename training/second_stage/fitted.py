"""The layers: blend, CNN stackers and trees, fitted to the members' scores and applied to other images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.records import ALL, BLEND
from training.second_stage.blend_weights import fit_weights
from training.second_stage.member_scores import MemberScores
from training.second_stage.stackers.cnn import CnnSettings, CnnStacker, fit_cnn, predict_cnn
from training.second_stage.stackers.trees import PairStacker, fit_pairs, score_pairs

APART, TOGETHER, TREES = "cnn_apart", "cnn_all", "trees"
PARTS = (BLEND, APART, TOGETHER, TREES)


@dataclass(frozen=True)
class LayerSettings:
    """The stackers to fit, and the seed."""

    cnn: bool = True
    trees: bool = True
    seed: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the fitted parts, the blend first."""
        return (BLEND, *((APART, TOGETHER) if self.cnn else ()), *((TREES,) if self.trees else ()))


@dataclass(frozen=True)
class Layers:
    """The blend and the stackers, fitted to the same images."""

    weights: Mapping[str, Mapping[str, float]]
    """Of the blend, by group and member."""
    cnns: Mapping[str, CnnStacker]
    """By group, and one for all labels under ALL."""
    trees: PairStacker | None


def fit_layers(members: MemberScores, labels: Labels, settings: LayerSettings, purpose: str) -> Layers:
    """Fit all layers; `purpose` is shown in the progress bar."""
    weights = fit_blend(members, labels)
    cnns = {}
    for group in (*labels.groups, ALL) if settings.cnn else ():
        own, columns = take_group(members, labels, group), labels.columns(group)
        title = f"{purpose}, CNN of {group}"
        cnns[group] = fit_cnn(own, members.truth[:, columns], CnnSettings(), settings.seed, title=title)
    trees = fit_pairs(members, labels, weights, settings.seed) if settings.trees else None
    return Layers(weights, cnns, trees)


def score_layers(layers: Layers, members: MemberScores, labels: Labels) -> dict[str, NDArray[np.float32]]:
    """Return the scores of each part, (images, labels); a missing member has NaN.

    Same method as the kernel (inference/ensemble/second_stage.py), but with torch and LightGBM.
    """
    blended = blend_members(members, labels, layers.weights)
    scored = {BLEND: blended}
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


def take_group(members: MemberScores, labels: Labels, group: str) -> NDArray[np.float16]:
    """Select the input of a group's CNN, (images, members that cover the group, labels of the group)."""
    return members.scores[:, list_places(members, labels, group)][:, :, labels.columns(group)]


def list_places(members: MemberScores, labels: Labels, group: str) -> list[int]:
    """List the indices of the members that cover a group; of all members for ALL."""
    return [place for place, groups in enumerate(members.covers) if group == ALL or group in groups]


def fit_blend(members: MemberScores, labels: Labels) -> dict[str, dict[str, float]]:
    """Fit the weights of the members, by group."""
    scores = {name: members.scores[:, place] for place, name in enumerate(members.names)}
    covers = {group: [members.names[place] for place in list_places(members, labels, group)] for group in labels.groups}
    return fit_weights(scores, covers, members.truth, labels)


def blend_members(
    members: MemberScores, labels: Labels, weights: Mapping[str, Mapping[str, float]]
) -> NDArray[np.float32]:
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
