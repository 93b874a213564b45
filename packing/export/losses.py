"""What a less precise form of a model costs: answers that change, and loss of the task's metric."""

import numpy as np

from inference.manifest.model import OnnxEntry
from inference.manifest.task import Task
from inference.manifest.values import Precision
from zoo.metrics.scoring import find_scoring
from zoo.metrics.selection import Answers, Truth, choose_classes


def count_flips(found: Answers, wanted: Answers, task: Task) -> float:
    """Return the labels that change, relative to those of `wanted`; of ranked labels, the best; 0 for numbers."""
    if not task.submission.holds_labels:
        return 0.0
    if task.selects_labels:
        return float((found != wanted).sum() / wanted.sum())
    return float((choose_classes(found) != choose_classes(wanted)).mean())


def measure_loss(found: Answers, wanted: Answers, truth: Truth | None, task: Task) -> float:
    """Return by how much the metric of `found` is worse than that of `wanted`, from -1 to 1.

    Measured against the truth, or against `wanted` itself if that is unknown. Metrics that are better if lower have any
    scale: their loss is divided by the metric of `wanted`, or, if `wanted` is the truth, by that of a constant answer,
    the mean. 0 where the metric cannot be known, as the ROC AUC of images without any true label.
    """
    scoring = find_scoring(task)
    known = wanted if truth is None else truth
    before, after = scoring.score(wanted, known), scoring.score(found, known)
    loss = scoring.find_gain(before, after)
    if not scoring.higher_is_better and loss != 0:
        constant = np.broadcast_to(wanted.mean(axis=0), wanted.shape)
        scale = before if truth is not None else scoring.score(constant, known)
        loss = loss / scale if scale > 0 else np.sign(loss)
    return float(np.clip(np.nan_to_num(loss), -1, 1))


def describe_entry(precision: Precision, entry: OnnxEntry, limit: float, task: Task) -> str:
    """Describe the differences of a file from torch or fp32 as text; `limit`: the largest allowed loss."""
    text = f"opset {entry.opset}  parity {entry.parity:.1e}"
    if precision != "fp32":
        scoring = find_scoring(task)
        flipped = f"  labels flipped {entry.flips:.2%}" if task.submission.holds_labels else ""
        change = 0.0 - round(entry.metric_loss, 4)
        figure = f"{change:+.4f}" if scoring.higher_is_better else f"{0.0 - change:+.2%}"
        text += f"{flipped}  {scoring.title} {figure}"
    return text if entry.metric_loss <= limit else f"{text}  not used: loses more than {limit} (`runtime.metric_loss`)"
