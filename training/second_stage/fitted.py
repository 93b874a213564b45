"""Everything that is fitted to members' scores, and what it makes of others: the blend, the CNN stackers, the trees."""

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
    """Which stackers there are, and the seed of all that is random."""

    cnn: bool = True
    trees: bool = True
    seed: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The scores that there will be, the blend first."""
        return (BLEND, *((APART, TOGETHER) if self.cnn else ()), *((TREES,) if self.trees else ()))


@dataclass(frozen=True)
class Layers:
    """`weights`: of the blend, by group and member; `cnns`: by group, and of all labels; `trees`: over pairs."""

    weights: Mapping[str, Mapping[str, float]]
    cnns: Mapping[str, CnnStacker]
    trees: PairStacker | None


def fit_layers(evidence: MemberScores, labels: Labels, settings: LayerSettings, purpose: str) -> Layers:
    """Fit all layers to the images of `evidence`; `purpose` is told beside the progress."""
    weights = fit_blend(evidence, labels)
    cnns = {}
    for group in (*labels.groups, ALL) if settings.cnn else ():
        own, columns = take_group(evidence, labels, group), labels.columns(group)
        title = f"{purpose}, CNN of {group}"
        cnns[group] = fit_cnn(own, evidence.truth[:, columns], CnnSettings(), settings.seed, title=title)
    trees = fit_pairs(evidence, labels, weights, settings.seed) if settings.trees else None
    return Layers(weights, cnns, trees)


def score_layers(layers: Layers, evidence: MemberScores, labels: Labels) -> dict[str, NDArray[np.float32]]:
    """By part, the scores of the images of `evidence`, (images, labels); members may have NaN where they cover labels.

    As the kernel makes them (inference/ensemble/second_stage.py), by torch and LightGBM.
    """
    blended = blend_members(evidence, labels, layers.weights)
    scored = {BLEND: blended}
    if layers.cnns:
        scored[APART] = np.zeros_like(blended)
    for group, cnn in layers.cnns.items():
        found = predict_cnn(cnn, take_group(evidence, labels, group))
        if group == ALL:
            scored[TOGETHER] = found
        else:
            scored[APART][:, labels.columns(group)] = found
    if layers.trees:
        scored[TREES] = score_pairs(layers.trees, evidence, labels, blended)
    return scored


def take_group(evidence: MemberScores, labels: Labels, group: str) -> NDArray[np.float16]:
    """What a CNN of a group looks at, (images, members that cover it, labels of the group)."""
    return evidence.scores[:, list_places(evidence, labels, group)][:, :, labels.columns(group)]


def list_places(evidence: MemberScores, labels: Labels, group: str) -> list[int]:
    """Places of the members that cover a group; of all members for all labels."""
    return [place for place, groups in enumerate(evidence.covers) if group == ALL or group in groups]


def fit_blend(evidence: MemberScores, labels: Labels) -> dict[str, dict[str, float]]:
    """The weights of the members that cover each group."""
    scores = {name: evidence.scores[:, place] for place, name in enumerate(evidence.members)}
    covers = {
        group: [evidence.members[place] for place in list_places(evidence, labels, group)] for group in labels.groups
    }
    return fit_weights(scores, covers, evidence.truth, labels)


def blend_members(
    evidence: MemberScores, labels: Labels, weights: Mapping[str, Mapping[str, float]]
) -> NDArray[np.float32]:
    """The weighted mean of the members that have a score, (images, labels); 0 where none has."""
    blended = np.zeros((len(evidence.rows), len(labels.ids)), np.float32)
    for group, given in weights.items():
        columns = np.array(labels.columns(group))
        total = np.zeros((len(blended), len(columns)), np.float32)
        summed = np.zeros_like(total)
        for name, weight in given.items():
            scores = evidence.scores[:, evidence.members.index(name)][:, columns].astype(np.float32)
            there = np.float32(weight) * ~np.isnan(scores)
            total += there
            summed += there * np.nan_to_num(scores)
        blended[:, columns] = summed / np.maximum(total, np.finfo(np.float32).tiny)
    return blended
