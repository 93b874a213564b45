"""The metric of a task: what it needs of each image, and the figure for all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.task import Task
from zoo.metrics.f_beta import count_pairs, mark_cells, score_classes, score_labels, score_pairs, score_samples
from zoo.metrics.ranking import average_precisions, rank_images, score_areas
from zoo.metrics.selection import (
    HALF,
    Answers,
    Truth,
    choose_classes,
    compare_classes,
    pair_classes,
    score_kappa,
    select_top,
)
from zoo.metrics.values import diverge, lose_class_logs, lose_logs, square_errors, take_root

Summary = NDArray[Any]
"""(images, ...): what the figure needs of each image; resampled images are an index of it."""


@dataclass(frozen=True)
class Scoring:
    """A metric."""

    title: str
    """As a reader knows it: F2, macro F1, accuracy, quadratic kappa, MAP@5, ROC AUC, log loss, KL divergence, RMSE."""
    key: str
    """Name of the figure in files: f2, macro_f1, accuracy, kappa, map5, roc_auc, log_loss, kl_divergence, rmse."""
    higher_is_better: bool
    is_mean: bool
    """The figure is the mean of a summary of shape (images,)."""
    summarise: Callable[[Answers, Truth], Summary]
    """From answers and truth, (images, labels) each."""
    total: Callable[[Summary], float]

    def score(self, answers: Answers, truth: Truth) -> float:
        """Return the figure; `answers`: of `decide`, `truth`: of a table, (images, labels) each."""
        return self.total(self.summarise(answers, truth))

    def find_gain(self, one: float, other: float) -> float:
        """Return by how much the figure `one` is better than the figure `other`; negative if it is worse."""
        return one - other if self.higher_is_better else other - one


def find_scoring(task: Task) -> Scoring:
    """Return the task's metric."""
    if task.metric.name == "f_beta":
        return make_f_beta(task)
    if task.metric.name == "accuracy":
        return Scoring("accuracy", "accuracy", True, True, compare_classes, take_mean)
    if task.metric.name == "kappa":
        return Scoring("quadratic kappa", "kappa", True, False, pair_classes, score_kappa)
    if task.metric.name == "map":
        return make_map(task)
    if task.metric.name == "roc_auc":
        summarise = partial(apply_hardened, rank_images, task)
        return Scoring("ROC AUC", "roc_auc", True, False, summarise, score_areas)
    if task.metric.name == "log_loss":
        lose = lose_class_logs if task.type == "multiclass" else lose_logs
        return Scoring("log loss", "log_loss", False, True, lose, take_mean)
    if task.metric.name == "kl_divergence":
        return Scoring("KL divergence", "kl_divergence", False, True, diverge, take_mean)
    low, high = task.value_range
    return Scoring("RMSE", "rmse", False, False, partial(square_errors, width=high - low), take_root)


def make_f_beta(task: Task) -> Scoring:
    """Return F-beta with the task's beta and average."""
    beta, average = task.metric.beta, task.metric.average
    name = f"F{beta:g}" if average == "samples" else f"{average} F{beta:g}"
    key = name.lower().replace(" ", "_")
    if average == "macro" and task.type == "multiclass":
        return Scoring(name, key, True, False, pair_classes, partial(score_classes, beta=beta))
    if average == "samples":
        summarise = partial(apply_selected, partial(score_samples, beta=beta), task)
        return Scoring(name, key, True, True, summarise, take_mean)
    if average == "micro":
        summarise = partial(apply_selected, count_pairs, task)
        return Scoring(name, key, True, False, summarise, partial(score_pairs, beta=beta))
    return Scoring(name, key, True, False, partial(apply_selected, mark_cells, task), partial(score_labels, beta=beta))


def make_map(task: Task) -> Scoring:
    """Return MAP@k with the task's k."""
    summarise = partial(apply_hardened, partial(average_precisions, k=task.metric.k), task)
    return Scoring(f"MAP@{task.metric.k}", f"map{task.metric.k}", True, True, summarise, take_mean)


def take_mean(summary: Summary) -> float:
    """Return the mean of a summary, (images,)."""
    return float(summary.mean())


def apply_selected(
    measure: Callable[[NDArray[np.bool_], NDArray[np.bool_]], Summary], task: Task, answers: Answers, truth: Truth
) -> Summary:
    """Measure the labels that the answers select against the true ones."""
    return measure(select_answers(answers, task), harden_truth(truth, task))


def apply_hardened(
    measure: Callable[[Answers, NDArray[np.bool_]], Summary], task: Task, answers: Answers, truth: Truth
) -> Summary:
    """Measure the answers against the true labels."""
    return measure(answers, harden_truth(truth, task))


def select_answers(answers: Answers, task: Task) -> NDArray[np.bool_]:
    """Return the labels that the answers select, (images, labels).

    Of numbers, these are the first `top_k`, the highest for one class per image, or those of at least 0.5.
    """
    if answers.dtype == np.bool_:
        return answers
    if task.type == "multiclass":
        return mark_classes(choose_classes(answers), answers.shape[1])
    if task.type == "multilabel" and task.submission.top_k is not None:
        return select_top(answers, task.submission.top_k) & (answers > -np.inf)
    return answers >= HALF


def harden_truth(truth: Truth, task: Task) -> NDArray[np.bool_]:
    """Return the true labels, (images, labels): of shares the highest, or those of at least 0.5."""
    if truth.dtype == np.bool_:
        return truth
    if task.type == "multiclass":
        return mark_classes(choose_classes(truth), truth.shape[1])
    return truth >= HALF


def mark_classes(classes: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Return one true column per image, (images, size), from its index, (images,)."""
    marked = np.zeros((len(classes), size), np.bool_)
    marked[np.arange(len(classes)), classes] = True
    return marked
