"""What the weights of a blend or a mix are fitted for: the task's metric of weighted scores, with a plain rule."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.fitted_rules import adjust_probabilities
from inference.manifest.decision import Fitted
from inference.manifest.task import Task
from training.scoring.class_weights import score_chosen
from zoo.metrics.f_beta import THRESHOLDS, count_above, score_counts
from zoo.metrics.ranking import average_precisions
from zoo.metrics.scoring import harden_truth
from zoo.metrics.selection import Truth, choose_classes, score_kappa
from zoo.metrics.values import lose_class_logs, lose_logs

CANDIDATES = 40
"""Labels considered per image: the best by any part. The others score below every useful threshold or rank."""
GRID = THRESHOLDS[3::4]
"""Of macro F-beta: 0.02, 0.04, ..."""
MOST_PAIRS = 400_000
"""Pairs of image and label that ROC AUC or log loss of separate labels is measured on; a step of the search is then
shorter than 0.1 s."""

FEWEST_IMAGES = 1000
"""That log loss is measured on, whatever the number of labels."""
TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0)

Stacked = NDArray[np.float32]
"""(parts, images, labels); NaN for images without a score of the part."""
Known = NDArray[np.bool_] | None
"""Which images have a score of a part, (parts, images); None: all."""
Weights = NDArray[np.float64]
"""(parts,), adding up to 1."""
Objective = Callable[[Weights], float]
"""A higher number is better."""


@dataclass(frozen=True)
class Candidates:
    """The labels of one group that are considered for each image."""

    scores: Stacked
    """(parts, images, candidates), 0 where unknown."""
    truth: NDArray[np.bool_]
    """(images, candidates)."""
    columns: NDArray[np.int64]
    """Of the candidates, (images, candidates)."""
    known: Known = None

    def mix(self, weights: Weights) -> NDArray[np.float32]:
        """Return the weighted scores, (images, candidates)."""
        return mix_scores(self.scores, weights, self.known)

    def count(self, weights: Weights) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count predicted labels, and the true ones among them, at each of THRESHOLDS; (images, thresholds) each."""
        mixed = self.mix(weights)
        return count_above(mixed), count_above(np.where(self.truth, mixed, np.float32(-1)))


def gather_candidates(scores: Stacked, truth: NDArray[np.bool_]) -> Candidates:
    """Select the candidates: per image, the labels with the largest score of any part; `truth`: (images, labels)."""
    scores, known = fill_unknown(scores)
    size = min(CANDIDATES, scores.shape[2])
    columns = np.argpartition(-scores.max(axis=0), size - 1, axis=1)[:, :size]
    return Candidates(
        np.take_along_axis(scores, columns[None], axis=2), np.take_along_axis(truth, columns, axis=1), columns, known
    )


def make_objective(task: Task, scores: Stacked, truth: Truth) -> Objective:
    """Return the metric of the weighted scores of a group's labels; `truth`: (images, labels of the group).

    The rules: the best threshold of each label for macro F-beta, the rounded expected class or the best label for
    kappa, a straight line for RMSE, the scores themselves for ROC AUC, log loss and KL divergence, else the best
    labels. Not for F-beta of samples or of all pairs, which depend on the other groups (blend_weights.py).
    """
    name, macro = task.metric.name, task.metric.average == "macro"
    if name == "rmse":
        return make_linear(scores[:, :, 0], truth[:, 0])
    if name == "roc_auc":
        return make_areas(scores, harden_truth(truth, task))
    if name in ("log_loss", "kl_divergence"):
        return make_logs(scores, truth, exclusive=task.type == "multiclass")
    if name == "kappa":
        return make_kappa(scores, choose_classes(truth))
    true = harden_truth(truth, task)
    if name == "f_beta" and task.selects_labels:
        return make_label_thresholds(scores, true, task.metric.beta)
    parts = gather_candidates(scores, true)
    if name == "map":
        return lambda weights: float(average_precisions(parts.mix(weights), parts.truth, task.metric.k).mean())
    beta = task.metric.beta if name == "f_beta" and macro else None
    return make_best_label(parts, true.argmax(axis=1), true.shape[1], beta)


def fill_unknown(scores: Stacked) -> tuple[Stacked, Known]:
    """Return the scores with 0 in place of NaN, and which images have a score of a part: of all labels or of none."""
    known = ~np.isnan(scores[:, :, 0])
    return (scores, None) if known.all() else (np.nan_to_num(scores), known)


def mix_scores(scores: Stacked, weights: Weights, known: Known = None) -> NDArray[np.float32]:
    """Return the weighted mean over the parts that have a score; `scores`: (parts, images, ...).

    Where only parts of weight 0 have one, it is their mean. Weights add up to 1: without `known`, it is their sum.
    """
    if known is None:
        summed: NDArray[np.float32] = np.tensordot(weights.astype(np.float32), scores, axes=1)
        return summed
    given = weights[:, None] * known
    given = np.where(given.any(axis=0), given, known)
    # A single part has the share 1, so that its scores are not rounded.
    shares = (given / given.sum(axis=0)).astype(np.float32)
    mixed = np.zeros(scores.shape[1:], np.float32)
    for share, part in zip(shares, scores, strict=True):
        mixed += share.reshape(-1, *[1] * (part.ndim - 1)) * part
    return mixed


def make_best_label(parts: Candidates, classes: NDArray[np.int64], size: int, beta: float | None) -> Objective:
    """Return macro F-beta of the label with the highest score, or the accuracy without a beta; `classes`: (images,)."""
    rows = np.arange(len(classes))

    def measure(weights: Weights) -> float:
        best = parts.mix(weights).argmax(axis=1)
        if beta is None:
            return float(parts.truth[rows, best].mean())
        return score_chosen(parts.columns[rows, best], classes, size, beta)

    return measure


def make_kappa(scores: Stacked, classes: NDArray[np.int64]) -> Objective:
    """Return quadratic kappa of the rounded expected class or of the best label, whichever is higher."""
    scores, known = fill_unknown(scores)
    last = scores.shape[2] - 1
    expected = scores @ np.arange(last + 1, dtype=np.float32)  # (parts, images)

    def measure(weights: Weights) -> float:
        rounded = np.floor(mix_scores(expected, weights, known) + 0.5).clip(0, last).astype(np.int64)
        best = mix_scores(scores, weights, known).argmax(axis=1)
        return max(score_kappa(np.stack([chosen, classes], axis=1)) for chosen in (rounded, best))

    return measure


def make_label_thresholds(scores: Stacked, truth: NDArray[np.bool_], beta: float) -> Objective:
    """Return the mean over labels of F-beta at each label's best threshold of GRID.

    Only pairs of image and label in which some part reaches the lowest threshold can be predicted.
    """
    parts = gather_candidates(scores, truth)
    rows, places = np.nonzero(parts.scores.max(axis=0) >= GRID[0])
    pairs, hits, columns = parts.scores[:, rows, places], parts.truth[rows, places], parts.columns[rows, places]
    known = None if parts.known is None else parts.known[:, rows]
    true, width = truth.sum(axis=0)[:, None], len(GRID) + 1
    grid = GRID.astype(np.float32)

    def count(cells: NDArray[np.int64]) -> NDArray[np.int64]:
        histogram = np.bincount(cells, minlength=len(true) * width).reshape(len(true), width)
        return histogram[:, :0:-1].cumsum(axis=1)

    def measure(weights: Weights) -> float:
        cells = np.searchsorted(grid, mix_scores(pairs, weights, known), side="right") + width * columns
        return float(score_counts(count(cells[hits]), count(cells), true, beta).max(axis=1).mean())

    return measure


def make_areas(scores: Stacked, truth: NDArray[np.bool_]) -> Objective:
    """Return the mean over labels of the area under the ROC curve.

    Of many images, at most MOST_PAIRS / labels are used for a label, evenly spaced: the true ones first, up to half.
    """
    most = max(MOST_PAIRS // truth.shape[1], 2)
    rows: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    for label in range(truth.shape[1]):
        true = thin(np.flatnonzero(truth[:, label]), most // 2)
        others = thin(np.flatnonzero(~truth[:, label]), most - len(true))
        if len(true) and len(others):
            rows += [true, others]
            columns.append(np.full(len(true) + len(others), label))
    if not rows:
        return lambda _: 0.0
    row, column = np.concatenate(rows), np.concatenate(columns)
    filled, known = fill_unknown(scores)
    known = None if known is None else known[:, row]
    pairs, hits = filled[:, row, column], truth[row, column]
    places = np.unique(column, return_inverse=True)[1]
    found, others = np.bincount(places, weights=hits), np.bincount(places, weights=~hits)
    before = others.cumsum() - others  # other images of the labels before

    def measure(weights: Weights) -> float:
        # Labels lie 2 apart, so that one sort ranks the images of each.
        codes = np.unique(2.0 * places + mix_scores(pairs, weights, known), return_inverse=True)[1]
        below = np.bincount(codes, weights=~hits)
        ranks = (below.cumsum() - below / 2)[codes[hits]] - before[places[hits]]
        return float((np.bincount(places[hits], weights=ranks) / (found * others)).mean())

    return measure


def make_logs(scores: Stacked, truth: Truth, exclusive: bool) -> Objective:
    """Return the negative log loss at the best of TEMPERATURES; of many images, evenly spaced ones are used.

    The decision fits a temperature after the weights. Without one here, the search would prefer a member for being
    sharp, which the temperature corrects, to one for being right. `exclusive`: one label per image.
    """
    rows = thin(np.arange(len(truth)), max(MOST_PAIRS // truth.shape[1], FEWEST_IMAGES))
    pairs, known = fill_unknown(scores[:, rows])
    true = truth[rows]
    clip = 0.5 / (len(truth) + 1) / (truth.shape[1] if exclusive else 1)
    temperatures = TEMPERATURES if true.size <= MOST_PAIRS else (1.0,)
    lose = lose_class_logs if exclusive else lose_logs
    tried = [Fitted(temperature=temperature, clip=clip, normalise=exclusive) for temperature in temperatures]

    def measure(weights: Weights) -> float:
        mixed = mix_scores(pairs, weights, known)
        return max(-float(lose(adjust_probabilities(mixed, fitted), true).mean()) for fitted in tried)

    return measure


def make_linear(scores: NDArray[np.float32], values: NDArray[np.float32]) -> Objective:
    """Return the negative root of the mean squared error after the best straight line.

    `scores`: (parts, images); `values`: (images,). From covariances: the line explains the square of the correlation.
    Those of the parts suffice if all images have a score of each part.
    """
    filled, known = fill_unknown(scores[:, :, None])
    if known is not None:

        def measure_mixed(weights: Weights) -> float:
            mixed = mix_scores(filled[:, :, 0], weights, known)
            return make_linear(mixed[None], values)(np.ones(1))

        return measure_mixed
    covariances = np.atleast_2d(np.cov(np.vstack([scores, values]).astype(np.float64)))
    among, shared, spread = covariances[:-1, :-1], covariances[:-1, -1], float(covariances[-1, -1])

    def measure(weights: Weights) -> float:
        own = float(weights @ among @ weights)
        explained = max(float(weights @ shared), 0.0) ** 2 / own if own > 0 else 0.0
        return -float(np.sqrt(max(spread - explained, 0.0)))

    return measure


def thin(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most `most` of the rows, evenly spaced."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
