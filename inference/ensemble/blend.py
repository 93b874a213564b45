"""The weighted mean of what the models say, in a module that needs no ONNX Runtime: the notebook shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.records import Manifest, list_members

Scores = NDArray[np.floating[Any]]


def blend(scores: Mapping[str, Scores], manifest: Manifest, labels: Labels) -> NDArray[np.float32]:
    """Weighted mean of the models that cover each group, (images, labels).

    `scores`: by model name, (images, labels of the model's group); the weights are `ensemble.weights` of the manifest.
    A model whose row is NaN is left out of the mean in that row; where none is left, the labels of the group are NaN.
    """
    models = {model.name: model for model in manifest.models}
    rows = len(next(iter(scores.values())))
    blended = np.full((rows, len(labels.ids)), np.nan, np.float32)
    for group, weights in manifest.ensemble.weights.items():
        columns = np.array(labels.columns(group))
        mean = np.zeros((rows, len(columns)), np.float32)
        total = np.zeros((rows, 1), np.float32)
        for name, weight in weights.items():
            if weight > 0:
                places = np.searchsorted(labels.columns(models[name].group), columns)
                part = scores[name][:, places].astype(np.float32)
                there = ~np.isnan(part[:, :1])  # a model has seen an image or it has not
                mean += np.where(there, np.float32(weight) * part, np.float32(0))
                total += np.float32(weight) * there
        blended[:, columns] = np.divide(mean, total, out=np.full_like(mean, np.nan), where=total > 0)
    return blended


def gather_members(
    scores: Mapping[str, Scores], manifest: Manifest, labels: Labels, names: Sequence[str]
) -> NDArray[np.float32]:
    """Each member's scores, (images, members, labels): the mean over its folds, NaN where there is none.

    `scores`: by model name, (images, labels of the model's group), NaN where a model has not seen an image; a model may
    be left out. NaN is left where no fold of a member has a score, and for labels that the member does not cover.
    """
    rows = len(next(iter(scores.values())))
    gathered = np.full((rows, len(names), len(labels.ids)), np.nan, np.float32)
    members = list_members(manifest.models)
    for place, name in enumerate(names):
        models = [model for model in members[name] if model.name in scores]
        if models:
            folds = [scores[model.name].astype(np.float32) for model in models]
            mean = folds[0] if len(folds) == 1 else _mean_there(np.stack(folds), axis=0)
            gathered[:, place, labels.columns(models[0].group)] = mean
    return gathered


def fill_members(gathered: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores of `gather_members` with each NaN replaced by the mean of the members that have a score, or 0."""
    holes = np.isnan(gathered)
    if not holes.any():  # nearly always, and the means of a large zoo take longer than its stackers' trees
        return gathered
    means = np.nan_to_num(_mean_there(gathered, axis=1))
    return np.where(holes, means[:, None], gathered)


def _mean_there(scores: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The mean over what is not NaN; NaN where nothing is."""
    there = ~np.isnan(scores)
    counts = there.sum(axis=axis, dtype=np.float32)
    sums = np.where(there, scores, np.float32(0)).sum(axis=axis, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float32] = sums / counts
    return mean
