"""The decision rules that suit a task, fitted to out-of-fold scores."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.ensemble.decide import decide
from inference.manifest.decision import Decision, Fitted, GroupDecision
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.manifest.values import DecisionRule
from training.scoring.calibrate_numbers import fit_line, fit_probabilities
from training.scoring.class_weights import fit_class_weights
from training.scoring.cut_points import fit_cuts, round_expectations
from training.scoring.halves import HALVES
from training.scoring.label_thresholds import count_images, find_group_places, fit_label_thresholds
from training.scoring.thresholds import declare_rules, fit_decision, rank_groups, search_groups, search_single
from zoo.metrics.f_beta import THRESHOLDS
from zoo.metrics.scoring import find_scoring, harden_truth
from zoo.metrics.selection import Truth, choose_classes

SINGLE, APART, COUNTS = "one threshold", "a threshold per group", "thresholds and label counts"
SHRUNK = "a threshold per label"
BEST, WEIGHTED = "best label", "class weights"
ROUNDED, CUTS = "rounded expectation", "cut points"
RANKING, SCORES = "ranking", "scores"
TEMPERATURE, LINEAR = "temperature and clip", "linear"


def list_rules(task: Task) -> tuple[str, ...]:
    """Return the names of the rules that suit a task, from the plainest to the richest."""
    name, average = task.metric.name, task.metric.average
    if task.selects_labels:
        return {"samples": (SINGLE, APART, COUNTS), "micro": (SINGLE, APART), "macro": (SINGLE, APART, SHRUNK)}[average]
    if task.submission.holds_labels:
        if name == "map":
            return (RANKING,)
        if name == "kappa":
            return BEST, ROUNDED, CUTS
        return (BEST, WEIGHTED) if (name, average) == ("f_beta", "macro") else (BEST,)
    if name == "roc_auc":
        return (SCORES,)
    return (SCORES, LINEAR) if name == "rmse" else (SCORES, TEMPERATURE)


def fit_rules(task: Task, scores: Scores, truth: Truth, labels: Labels) -> dict[str, Decision]:
    """Fit the rules of `list_rules` to the same images, each a decision without prior.

    `scores`, `truth`: (images, labels); scores without NaN, truth as in `Table.targets`.
    """
    if task.selects_labels:
        return fit_thresholds(task, scores, harden_truth(truth, task), labels)
    return {name: fit_rule(name, task, scores, truth) for name in list_rules(task)}


def fit_plainest(task: Task, scores: Scores, truth: Truth, labels: Labels) -> Decision:
    """Return the first rule of `list_rules`."""
    if task.selects_labels:
        return fit_rules(task, scores, truth, labels)[SINGLE]
    return fit_rule(list_rules(task)[0], task, scores, truth)


def fit_richest(task: Task, scores: Scores, truth: Truth, labels: Labels) -> Decision:
    """Return the last rule of `list_rules`."""
    if task.selects_labels:
        return fit_rules(task, scores, truth, labels)[list_rules(task)[-1]]
    return fit_rule(list_rules(task)[-1], task, scores, truth)


def fit_thresholds_apart(task: Task, scores: Scores, truth: Truth, labels: Labels) -> Decision:
    """Return the rule APART of a task whose answers are sets of labels, without the time for the richer ones."""
    true, beta, average = harden_truth(truth, task), task.metric.beta, task.metric.average
    if average == "macro":
        places = find_group_places(count_images(scores, true).score(beta), labels)
        return Decision(declare_groups(THRESHOLDS[places], labels), prior={})
    evidence = rank_groups(scores, true, labels, beta, average)
    return Decision(declare_rules(search_groups(evidence, search_single(evidence), minima=(0,), maxima=())), prior={})


def fit_thresholds(task: Task, scores: Scores, truth: NDArray[np.bool_], labels: Labels) -> dict[str, Decision]:
    """Fit the rules of a task whose answers are sets of labels; `scores`, `truth`: (images, labels)."""
    beta, average = task.metric.beta, task.metric.average
    if average != "macro":
        stages = fit_decision(scores, truth, labels, beta, average).stages
        return {name: Decision(groups, prior={}) for name, groups in zip(list_rules(task), stages, strict=False)}
    found = fit_label_thresholds(scores, truth, labels, beta)
    single, apart = (declare_groups(thresholds, labels) for thresholds in (found.single, found.apart))
    own = Fitted(label_thresholds=tuple(map(float, found.shrunk)))
    return {SINGLE: Decision(single, {}), APART: Decision(apart, {}), SHRUNK: Decision(apart, {}, fitted=own)}


def declare_groups(thresholds: NDArray[np.float64], labels: Labels) -> dict[str, GroupDecision]:
    """Return thresholds that are equal within each group, (labels,), in the form of the manifest."""
    return {
        group: GroupDecision(float(thresholds[columns[0]]), 0, len(columns)) for group, columns in labels.groups.items()
    }


def fit_rule(name: str, task: Task, scores: Scores, truth: Truth) -> Decision:
    """Fit one rule of a task whose answers are no sets of labels; `scores`, `truth`: (images, labels)."""
    rule: DecisionRule = "ranked" if task.submission.holds_labels else "probabilities"
    fitted = Fitted()
    if name in (ROUNDED, CUTS):
        rule = "cut_points"
        cuts = fit_cuts(scores, choose_classes(truth)) if name == CUTS else round_expectations(scores.shape[1])
        fitted = Fitted(cuts=cuts)
    elif name == WEIGHTED:
        weights = fit_class_weights(scores, choose_classes(truth), task.metric.beta)
        fitted = Fitted(label_weights=tuple(map(float, weights)))
    elif task.submission.content == "number":
        rule = "number"
        fitted = fit_line(scores, truth) if name == LINEAR else fitted
    elif name == TEMPERATURE:
        fitted = fit_probabilities(scores, truth, find_scoring(task), normalise=task.type == "multiclass")
    elif name == SCORES:
        fitted = Fitted(normalise=task.submission.sum_to_one)
    return Decision({}, prior={}, rule=rule, fitted=fitted)


def decide_crossed(scores: Scores, truth: Truth, labels: Labels, task: Task) -> NDArray[Any]:
    """Return the answers, (images, labels), each half of the images by the richest rule fitted to the other half.

    A single image has no other half: it gets no label, or the answer of the plainest rule.
    """
    if len(scores) < len(HALVES):
        if task.selects_labels:
            return np.zeros(scores.shape, np.bool_)
        return decide(scores, labels, fit_plainest(task, scores, truth, labels))
    parts = [
        decide(scores[judged], labels, fit_richest(task, scores[fitted], truth[fitted], labels))
        for fitted, judged in (HALVES, HALVES[::-1])
    ]
    answers = np.empty(scores.shape, parts[0].dtype)
    for judged, part in zip(HALVES[::-1], parts, strict=True):
        answers[judged] = part
    return answers
