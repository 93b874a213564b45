"""F-beta of the demo over all labels and over each group, at thresholds fitted to out-of-fold predictions."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores, blend
from inference.ensemble.decide import decide
from inference.manifest.decision import Decision, GroupDecision
from inference.manifest.labels import Labels
from inference.manifest.model import ALL
from zoo.metrics.f_beta import score_samples
from zoo.tables.out_of_fold import Zoo

THRESHOLDS = np.arange(0.04, 0.8, 0.02)

Truth = NDArray[np.bool_]


def list_group_rows(
    zoo: Zoo,
    truth: Truth,
    selected: Truth,
    scores: Mapping[str, Scores],
    own_truth: Truth,
    own_scores: Mapping[str, Scores],
) -> list[tuple[str, Mapping[str, float]]]:
    """Return the F-beta of each model and of the blend at one threshold, and of the submission, by group.

    `truth`, `selected`: (images, labels), of the test images and of the submission; `own_truth`, `own_scores`: of the
    training images that no model was trained on.
    """
    manifest, labels, beta = zoo.manifest, zoo.labels, zoo.manifest.task.metric.beta
    rows: list[tuple[str, Mapping[str, float]]] = []
    for model in manifest.models:
        threshold = fit_threshold(own_scores[model.name], own_truth, model.group, labels, beta)
        found = score_groups(scores[model.name], truth, threshold, model.group, labels, beta)
        rows.append((f"{model.name}: {model.architecture}", found))
    threshold = fit_threshold(blend(own_scores, manifest, labels), own_truth, ALL, labels, beta)
    found = score_groups(blend(scores, manifest, labels), truth, threshold, ALL, labels, beta)
    rows.append(("blend, one threshold", found))
    rows.append(("blend, one threshold per group", score_selected(selected, truth, ALL, labels, beta)))
    return rows


def fit_threshold(scores: Scores, truth: Truth, group: str, labels: Labels, beta: float) -> float:
    """Return the threshold of highest F-beta over the labels of a model's group."""
    return float(max(THRESHOLDS, key=lambda one: score_groups(scores, truth, one, group, labels, beta)[group]))


def score_groups(
    scores: Scores, truth: Truth, threshold: float, group: str, labels: Labels, beta: float
) -> dict[str, float]:
    """Return the F-beta at one threshold, as `score_selected`; `scores`: (images, labels of the group)."""
    whole = np.zeros(truth.shape, np.float32)
    whole[:, labels.columns(group)] = scores
    rule = GroupDecision(threshold, 0, len(labels.ids))
    selected = decide(whole, labels, Decision(dict.fromkeys(labels.groups, rule), prior={}))
    return score_selected(selected, truth, group, labels, beta)


def score_selected(selected: Truth, truth: Truth, group: str, labels: Labels, beta: float) -> dict[str, float]:
    """Return the F-beta over a group, for 'all' also over each; ignores images without a true label of the group."""
    found = {}
    for part in (ALL, *labels.groups) if group == ALL else (group,):
        columns = list(labels.columns(part))
        rows = truth[:, columns].any(axis=1)
        found[part] = float(score_samples(selected[rows][:, columns], truth[rows][:, columns], beta).mean())
    return found
