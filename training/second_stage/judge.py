"""What each method is worth on images that nothing in it was fitted to: an outer split around an inner one."""

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
RULES = ("one threshold", "a threshold a group", "and numbers of labels", "expected F2")
COUNTS, EXPECTED = RULES[2], RULES[3]
MethodScores = dict[str, NDArray[np.float32]]
Weights = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Rules:
    """Four ways to decide, fitted to the same scores: three stages of thresholds, and a calibration for expected F2."""

    stages: tuple[Mapping[str, GroupDecision], ...]
    calibration: Mapping[str, Calibration]

    def declare(self, rule: str) -> Decision:
        """The decision of the manifest, without its prior."""
        if rule == EXPECTED:
            return Decision(self.stages[-1], prior=(), rule="expected_f2", calibration=self.calibration)
        return Decision(self.stages[RULES.index(rule)], prior=())


@dataclass(frozen=True)
class Nested:
    """What the outer folds say of the images that each held out.

    `f2`: by method and rule, of each image; `taken`: by method, the labels that thresholds and numbers of labels take,
    (images, labels); `chances`: the last method's calibrated scores, (images, labels); `parts`: each part's scores,
    (images, labels); `outer`: the folds themselves.
    """

    f2: Mapping[tuple[str, str], NDArray[np.float64]]
    taken: Mapping[str, NDArray[np.bool_]]
    chances: NDArray[np.float32]
    parts: MethodScores
    outer: tuple["Outer", ...]


@dataclass(frozen=True)
class Outer:
    """One outer fold: the images that it held out, and what was fitted to the others; `rules`: of the last method."""

    held_out: NDArray[np.int64]
    layers: Layers
    mix: Weights
    rules: Rules


def judge_methods(
    evidence: MemberScores, labels: Labels, settings: LayerSettings, folds: int, tell: Callable[[str], None]
) -> Nested:
    """Fit and judge everything `folds` times, each time on the images of one fold.

    In each, the layers are fitted to the other folds' images and score the held-out ones. The mix and the rules are
    fitted to scores that an inner split of the other folds' images gives them: layers of one half score the other. So
    no image is judged by what has seen its truth. Folds are drawn at random: the members' scores are out of fold
    already, whatever their folds were.
    """
    owners = np.random.default_rng(settings.seed).permutation(len(evidence.rows)) % folds
    methods = list_methods(settings)
    f2: dict[tuple[str, str], NDArray[np.float64]] = {}
    taken = {method: np.zeros(evidence.truth.shape, np.bool_) for method in methods}
    chances = np.zeros(evidence.truth.shape, np.float32)
    parts: MethodScores = {}
    outer = []
    for fold in range(folds):
        inside, held_out = np.flatnonzero(owners != fold), np.flatnonzero(owners == fold)
        training, judged = evidence.take(inside), evidence.take(held_out)
        tell(f"outer fold {fold + 1} of {folds}: {len(inside)} images to fit to, {len(held_out)} judged")
        layers = fit_layers(training, labels, settings, f"fold {fold + 1}/{folds}")
        found = score_layers(layers, judged, labels)
        inner = cross_layers(training, labels, settings, f"fold {fold + 1}/{folds}, inner")
        mix = fit_weights(inner, {group: list(inner) for group in labels.groups}, training.truth, labels)
        single = choose_single(training, labels)
        rules = {}
        for method in methods:
            scores = score_method(method, inner, mix, training, labels, single)
            rules[method] = fit_rules(scores, training.truth, labels)
            there = score_method(method, found, mix, judged, labels, single)
            for rule in RULES:
                given = decide(there, labels, rules[method].declare(rule))
                f2.setdefault((method, rule), np.zeros(len(owners)))[held_out] = score_samples(given, judged.truth)
                if rule == COUNTS:
                    taken[method][held_out] = given
        chances[held_out] = calibrate(there, labels, rules[method].calibration)
        for part, scores in found.items():
            parts.setdefault(part, np.zeros((len(owners), len(labels.ids)), np.float32))[held_out] = scores
        outer.append(Outer(held_out, layers, mix, rules[methods[-1]]))
        tell(", ".join(f"{method} {f2[method, COUNTS][held_out].mean():.4f}" for method in methods))
    return Nested(f2, taken, chances, parts, tuple(outer))


def cross_layers(evidence: MemberScores, labels: Labels, settings: LayerSettings, purpose: str) -> MethodScores:
    """Each part's scores of all images, each half by layers fitted to the other."""
    halves = np.random.default_rng(settings.seed + 1).permutation(len(evidence.rows)) % 2
    parts: MethodScores = {}
    for half in range(2):
        layers = fit_layers(evidence.take(np.flatnonzero(halves != half)), labels, settings, f"{purpose} {half + 1}/2")
        other = np.flatnonzero(halves == half)
        for part, scores in score_layers(layers, evidence.take(other), labels).items():
            parts.setdefault(part, np.zeros((len(halves), len(labels.ids)), np.float32))[other] = scores
    return parts


def list_methods(settings: LayerSettings) -> list[str]:
    """What is judged, the mix last; without any stacker, the blend is last."""
    cnns = [APART, TOGETHER, BOTH] if settings.cnn else []
    trees = [TREES] if settings.trees else []
    return [SINGLE, MEAN, BLEND, *cnns, *trees, *([MIX] if cnns or trees else [])]


def score_method(
    method: str, parts: MethodScores, mix: Weights, evidence: MemberScores, labels: Labels, single: int
) -> NDArray[np.float32]:
    """The scores of a method, (images, labels); `single`: the place of the member that stands alone."""
    if method == SINGLE:
        alone = evidence.scores[:, single].astype(np.float32)
        alone[np.isnan(alone)] = 0
        return alone
    if method == MEAN:
        equal = {
            group: {
                name: 1.0 for name, groups in zip(evidence.members, evidence.covers, strict=True) if group in groups
            }
            for group in labels.groups
        }
        return blend_members(evidence, labels, equal)
    if method == BOTH:
        return np.float32(0.5) * (parts[APART] + parts[TOGETHER])
    return mix_parts(parts, mix, labels) if method == MIX else parts[method]


def mix_parts(parts: MethodScores, mix: Weights, labels: Labels) -> NDArray[np.float32]:
    """The weighted mean of the parts, by group, (images, labels)."""
    mixed = np.zeros_like(parts[BLEND])
    for group, weights in mix.items():
        columns = list(labels.columns(group))
        for name, weight in weights.items():
            mixed[:, columns] += np.float32(weight / sum(weights.values())) * parts[name][:, columns]
    return mixed


def choose_single(evidence: MemberScores, labels: Labels) -> int:
    """The place of the member with the best F2 at one threshold, of those that cover the most groups."""
    most = max(len(groups) for groups in evidence.covers)
    places = [place for place, groups in enumerate(evidence.covers) if len(groups) == most]
    scores = {place: np.nan_to_num(evidence.scores[:, place].astype(np.float32)) for place in places}
    return max(places, key=lambda place: find_threshold(scores[place], evidence.truth)[1])


def fit_rules(scores: NDArray[np.float32], truth: NDArray[np.bool_], labels: Labels) -> Rules:
    """All ways to decide, fitted to these images; `scores`, `truth`: (images, labels)."""
    calibration = {
        group: fit_calibration(scores[:, list(columns)], truth[:, list(columns)])
        for group, columns in labels.groups.items()
    }
    return Rules(fit_decision(scores, truth, labels).stages, calibration)
