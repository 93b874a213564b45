"""Judge each method on images that it was not fitted to: an outer split around an inner one (nested)."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.decide import calibrate, decide
from inference.manifest.decision import Decision
from inference.manifest.labels import Labels
from inference.manifest.records import BLEND
from inference.manifest.task import Task
from training.scoring.rules import APART as PER_GROUP
from training.scoring.rules import fit_rules, list_rules
from training.second_stage.calibration import fit_calibration
from training.second_stage.fitted import Layers, LayerSettings, Weights, fit_layers, score_layers
from training.second_stage.member_scores import MemberScores
from training.second_stage.methods import MethodScores, choose_single, fit_mix, list_methods, score_method
from zoo.metrics.scoring import Summary, find_scoring, harden_truth, select_answers
from zoo.metrics.selection import Answers, Truth

Rules = Mapping[str, Decision]
"""By name, without priors."""


class Pool:
    """The answers of several fits, each to images of its own, kept as the metric's summary of these images.

    The summary of ROC AUC is of ranks among all images, so the answers themselves are kept for it.
    """

    def __init__(self, task: Task, truth: Truth) -> None:
        """`truth`: of all images, (images, labels)."""
        self.scoring = find_scoring(task)
        self._truth, self._is_whole = truth, task.metric.name == "roc_auc"
        self._kept: NDArray[Any] | None = None

    def add(self, rows: NDArray[np.int64], answers: Answers) -> float:
        """Add the answers to the images `rows`; return their figure alone."""
        summary = self.scoring.summarise(answers, self._truth[rows])
        part = answers.astype(np.float32) if self._is_whole else summary
        if self._kept is None:
            self._kept = np.zeros((len(self._truth), *part.shape[1:]), part.dtype)
        self._kept[rows] = part
        return self.scoring.total(summary)

    def summarise(self) -> Summary:
        """Return the summary of all images."""
        assert self._kept is not None
        return self.scoring.summarise(self._kept, self._truth) if self._is_whole else self._kept


@dataclass(frozen=True)
class Nested:
    """The results of the outer folds, each on the images that it held out."""

    pools: dict[tuple[str, str], Pool]
    """By method and rule: every method with the richest rule of `list_rules`, the last one with all rules."""
    selected: dict[str, NDArray[np.bool_]]
    """By method, the labels selected by the richest rule, (images, labels), of the blend and the last method; empty
    where the answers are no labels and no classes."""
    values: NDArray[np.float32]
    """(images, labels): the last method's calibrated scores if it can be decided by them, else its answers."""
    parts: MethodScores
    """By part, (images, labels)."""
    outer: list["Outer"]

    def judge(
        self,
        method: str,
        rules: Rules,
        scores: NDArray[np.float32],
        rows: NDArray[np.int64],
        members: MemberScores,
        labels: Labels,
        task: Task,
    ) -> float:
        """Judge rules on a method's scores of the held-out images `rows`; return the figure of the richest one."""
        figures = {}
        for rule, decision in rules.items():
            answers = decide(scores, labels, decision)
            figures[rule] = self.pools.setdefault((method, rule), Pool(task, members.truth)).add(rows, answers)
            if rule == list_rules(task)[-1]:
                if method in self.selected:
                    self.selected[method][rows] = select_answers(answers, task)
                self.values[rows] = answers
        return figures[list_rules(task)[-1]]


@dataclass(frozen=True)
class Outer:
    """One outer fold: the images that it held out, and all that was fitted to the other images."""

    held_out: NDArray[np.int64]
    layers: Layers
    mix: Weights
    rules: Rules
    """Of the last method."""


def judge_methods(
    members: MemberScores,
    labels: Labels,
    task: Task,
    settings: LayerSettings,
    folds: int,
    report: Callable[[str], None],
) -> Nested:
    """Fit and judge all methods in `folds` outer folds; `report` prints the progress.

    In each fold, the layers are fitted to the images outside the fold and score the images inside it. The mix and the
    rules are fitted to inner scores of the outside images: layers fitted to one half score the other half. So nothing
    that judges an image was fitted to its labels. The folds are drawn at random and need not match the members' folds,
    because the members' scores are out of fold already.
    """
    owners = np.random.default_rng(settings.seed).permutation(len(members.rows)) % folds
    single = members.coverage is None or bool(members.coverage.whole)
    methods, richest = list_methods(settings, single=single), list_rules(task)[-1]
    shape = members.truth.shape
    selected = {method: np.zeros(shape, np.bool_) for method in (BLEND, methods[-1]) if shows_labels(task)}
    nested = Nested({}, selected, np.zeros(shape, np.float32), {}, [])
    for fold in range(folds):
        outside, held_out = np.flatnonzero(owners != fold), np.flatnonzero(owners == fold)
        training, judged = members.take(outside), members.take(held_out)
        report(f"outer fold {fold + 1} of {folds}: {len(outside)} images to fit, {len(held_out)} to judge")
        layers = fit_layers(training, labels, task, settings, f"fold {fold + 1}/{folds}")
        found = score_layers(layers, judged, labels)
        inner = cross_layers(training, labels, task, settings, f"fold {fold + 1}/{folds}, inner")
        mix = fit_mix(inner, training, labels, task)
        best = choose_single(training, labels, task)
        figures = {}
        for method in methods:
            inside = score_method(method, inner, mix, training, labels, best)
            rules: Rules = fit_rules(task, inside, training.truth, labels)
            if method == methods[-1]:
                rules = add_expected(rules, inside, training.truth, labels, task)
            scores = score_method(method, found, mix, judged, labels, best)
            used = rules if method == methods[-1] else {richest: rules[richest]}
            figures[method] = nested.judge(method, used, scores, held_out, members, labels, task)
        expected = name_expected(task)
        if expected:
            nested.values[held_out] = calibrate(scores, labels, rules[expected].calibration)
        for part, own in found.items():
            nested.parts.setdefault(part, np.zeros(shape, np.float32))[held_out] = own
        nested.outer.append(Outer(held_out, layers, mix, rules))
        report(", ".join(f"{method} {figure:.4f}" for method, figure in figures.items()))
    return nested


def cross_layers(
    members: MemberScores, labels: Labels, task: Task, settings: LayerSettings, purpose: str
) -> MethodScores:
    """Return each part's scores of all images; layers fitted to one half score the other."""
    halves = np.random.default_rng(settings.seed + 1).permutation(len(members.rows)) % 2
    parts: MethodScores = {}
    for half in range(2):
        fitted = members.take(np.flatnonzero(halves != half))
        layers = fit_layers(fitted, labels, task, settings, f"{purpose} {half + 1}/2")
        other = np.flatnonzero(halves == half)
        for part, scores in score_layers(layers, members.take(other), labels).items():
            parts.setdefault(part, np.zeros((len(halves), len(labels.ids)), np.float32))[other] = scores
    return parts


def shows_labels(task: Task) -> bool:
    """Return whether the answers are labels, or probabilities of which the highest is a class."""
    return task.submission.holds_labels or task.type == "multiclass"


def list_all_rules(task: Task) -> tuple[str, ...]:
    """Return the names of the rules of `list_rules`, and of expected F-beta where that is the metric."""
    expected = name_expected(task)
    return (*list_rules(task), *([expected] if expected else []))


def name_expected(task: Task) -> str | None:
    """Return the name of the rule of the highest expected F-beta, as in expected F2; None: it does not suit the task.

    It maximises F-beta of each image.
    """
    suits = task.selects_labels and task.metric.average == "samples"
    return f"expected F{task.metric.beta:g}" if suits else None


def name_base(task: Task) -> str:
    """Return the name of the rule that the others are compared with: a threshold per group, or the plainest."""
    rules = list_rules(task)
    return PER_GROUP if PER_GROUP in rules else rules[0]


def fit_all_rules(scores: NDArray[np.float32], truth: Truth, labels: Labels, task: Task) -> Rules:
    """Fit the rules of `list_all_rules` to these images; `scores`, `truth`: (images, labels)."""
    return add_expected(fit_rules(task, scores, truth, labels), scores, truth, labels, task)


def add_expected(rules: Rules, scores: NDArray[np.float32], truth: Truth, labels: Labels, task: Task) -> Rules:
    """Add the rule of the highest expected F-beta, if it suits the task, with a calibration of each group."""
    expected = name_expected(task)
    if expected is None:
        return rules
    true = harden_truth(truth, task)
    calibration = {
        group: fit_calibration(scores[:, list(columns)], true[:, list(columns)])
        for group, columns in labels.groups.items()
    }
    richest = rules[list_rules(task)[-1]]
    added = dataclasses.replace(richest, rule="expected_f", calibration=calibration, beta=task.metric.beta)
    return {**rules, expected: added}
