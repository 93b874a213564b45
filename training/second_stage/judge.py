"""Judge each method on images that it was not fitted to: an outer split around an inner one (nested)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.decide import calibrate, decide
from inference.manifest.labels import Labels
from inference.manifest.records import BLEND, Calibration, Decision, GroupDecision
from training.scoring.thresholds import fit_decision
from training.second_stage.blend_weights import fit_weights
from training.second_stage.calibration import fit_calibration
from training.second_stage.fitted import (
    APART,
    TOGETHER,
    TREES,
    Layers,
    LayerSettings,
    blend_members,
    fit_layers,
    score_layers,
)
from training.second_stage.member_scores import MemberScores
from zoo.f2 import find_threshold, score_samples

SINGLE, MEAN, BOTH, MIX = "best single model", "mean", "cnn_both", "mix"
RULES = ("one threshold", "a threshold per group", "thresholds and label counts", "expected F2")
COUNTS, EXPECTED = RULES[2], RULES[3]
MethodScores = dict[str, NDArray[np.float32]]
Weights = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Rules:
    """The four decision rules of RULES, fitted to the same scores."""

    stages: tuple[Mapping[str, GroupDecision], ...]
    """Of the first three rules, by group."""
    calibration: Mapping[str, Calibration]
    """For expected F2, by group."""

    def declare(self, rule: str) -> Decision:
        """Return a rule as the decision of the manifest, without its prior."""
        if rule == EXPECTED:
            return Decision(self.stages[-1], prior={}, rule="expected_f2", calibration=self.calibration)
        return Decision(self.stages[RULES.index(rule)], prior={})


@dataclass(frozen=True)
class Nested:
    """The results of the outer folds, each on the images that it held out."""

    f2: Mapping[tuple[str, str], NDArray[np.float64]]
    """By method and rule, (images,)."""
    predicted: Mapping[str, NDArray[np.bool_]]
    """By method, the labels selected by thresholds and label counts, (images, labels)."""
    probabilities: NDArray[np.float32]
    """The last method's calibrated scores, (images, labels)."""
    parts: MethodScores
    """By part, (images, labels)."""
    outer: tuple["Outer", ...]


@dataclass(frozen=True)
class Outer:
    """One outer fold: the images that it held out, and all that was fitted to the other images."""

    held_out: NDArray[np.int64]
    layers: Layers
    mix: Weights
    rules: Rules
    """Of the last method."""


def judge_methods(
    members: MemberScores, labels: Labels, settings: LayerSettings, folds: int, report: Callable[[str], None]
) -> Nested:
    """Fit and judge all methods in `folds` outer folds; `report` prints the progress.

    In each fold, the layers are fitted to the images outside the fold and score the images inside it. The mix and the
    rules are fitted to inner scores of the outside images: layers fitted to one half score the other half. So nothing
    that judges an image was fitted to its labels. The folds are drawn at random and need not match the members' folds,
    because the members' scores are out of fold already.
    """
    owners = np.random.default_rng(settings.seed).permutation(len(members.rows)) % folds
    methods = list_methods(settings)
    f2: dict[tuple[str, str], NDArray[np.float64]] = {}
    predicted = {method: np.zeros(members.truth.shape, np.bool_) for method in methods}
    probabilities = np.zeros(members.truth.shape, np.float32)
    parts: MethodScores = {}
    outer = []
    for fold in range(folds):
        outside, held_out = np.flatnonzero(owners != fold), np.flatnonzero(owners == fold)
        training, judged = members.take(outside), members.take(held_out)
        report(f"outer fold {fold + 1} of {folds}: {len(outside)} images to fit, {len(held_out)} to judge")
        layers = fit_layers(training, labels, settings, f"fold {fold + 1}/{folds}")
        found = score_layers(layers, judged, labels)
        inner = cross_layers(training, labels, settings, f"fold {fold + 1}/{folds}, inner")
        mix = fit_weights(inner, {group: list(inner) for group in labels.groups}, training.truth, labels)
        single = choose_single(training, labels)
        rules = {}
        for method in methods:
            scores = score_method(method, inner, mix, training, labels, single)
            rules[method] = fit_rules(scores, training.truth, labels)
            judged_scores = score_method(method, found, mix, judged, labels, single)
            for rule in RULES:
                given = decide(judged_scores, labels, rules[method].declare(rule))
                f2.setdefault((method, rule), np.zeros(len(owners)))[held_out] = score_samples(given, judged.truth)
                if rule == COUNTS:
                    predicted[method][held_out] = given
        probabilities[held_out] = calibrate(judged_scores, labels, rules[method].calibration)
        for part, scores in found.items():
            parts.setdefault(part, np.zeros((len(owners), len(labels.ids)), np.float32))[held_out] = scores
        outer.append(Outer(held_out, layers, mix, rules[methods[-1]]))
        report(", ".join(f"{method} {f2[method, COUNTS][held_out].mean():.4f}" for method in methods))
    return Nested(f2, predicted, probabilities, parts, tuple(outer))


def cross_layers(members: MemberScores, labels: Labels, settings: LayerSettings, purpose: str) -> MethodScores:
    """Return each part's scores of all images; layers fitted to one half score the other."""
    halves = np.random.default_rng(settings.seed + 1).permutation(len(members.rows)) % 2
    parts: MethodScores = {}
    for half in range(2):
        layers = fit_layers(members.take(np.flatnonzero(halves != half)), labels, settings, f"{purpose} {half + 1}/2")
        other = np.flatnonzero(halves == half)
        for part, scores in score_layers(layers, members.take(other), labels).items():
            parts.setdefault(part, np.zeros((len(halves), len(labels.ids)), np.float32))[other] = scores
    return parts


def list_methods(settings: LayerSettings) -> list[str]:
    """List the methods to judge; the mix is last, or the blend if there is no stacker."""
    cnns = [APART, TOGETHER, BOTH] if settings.cnn else []
    trees = [TREES] if settings.trees else []
    return [SINGLE, MEAN, BLEND, *cnns, *trees, *([MIX] if cnns or trees else [])]


def score_method(
    method: str, parts: MethodScores, mix: Weights, members: MemberScores, labels: Labels, single: int
) -> NDArray[np.float32]:
    """Return the scores of a method, (images, labels); `single`: index of the best single model."""
    if method == SINGLE:
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


def mix_parts(parts: MethodScores, mix: Weights, labels: Labels) -> NDArray[np.float32]:
    """Return the weighted mean of the parts by group, (images, labels)."""
    mixed = np.zeros_like(parts[BLEND])
    for group, weights in mix.items():
        columns = list(labels.columns(group))
        for name, weight in weights.items():
            mixed[:, columns] += np.float32(weight / sum(weights.values())) * parts[name][:, columns]
    return mixed


def choose_single(members: MemberScores, labels: Labels) -> int:
    """Return the index of the member with the best F2 at one threshold, among those that cover the most groups."""
    most = max(len(groups) for groups in members.covers)
    places = [place for place, groups in enumerate(members.covers) if len(groups) == most]
    scores = {place: np.nan_to_num(members.scores[:, place].astype(np.float32)) for place in places}
    return max(places, key=lambda place: find_threshold(scores[place], members.truth)[1])


def fit_rules(scores: NDArray[np.float32], truth: NDArray[np.bool_], labels: Labels) -> Rules:
    """Fit all rules to these images; `scores`, `truth`: (images, labels)."""
    calibration = {
        group: fit_calibration(scores[:, list(columns)], truth[:, list(columns)])
        for group, columns in labels.groups.items()
    }
    return Rules(fit_decision(scores, truth, labels).stages, calibration)
