"""Weighted mean of the models' scores. Does not import ONNX Runtime, because the notebook uses this module too."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.model import list_members
from inference.manifest.records import BLEND, Manifest

Scores = NDArray[np.floating[Any]]


def blend(scores: Mapping[str, Scores], manifest: Manifest, labels: Labels, name: str = BLEND) -> NDArray[np.float32]:
    """Return the weighted mean of the models of each group, (images, labels).

    `scores`: by model name, (images, labels of the model's group); `name`: BLEND for the weights `ensemble.weights` of
    the manifest, or one of `ensemble.blends`. The mean of an image ignores models whose row is NaN; it is NaN if all
    are.
    """
    given = manifest.ensemble.weights if name == BLEND else manifest.ensemble.blends[name]
    models = {model.name: model for model in manifest.models}
    rows = len(next(iter(scores.values())))
    blended = np.full((rows, len(labels.ids)), np.nan, np.float32)
    for group, weights in given.items():
        columns = np.array(labels.columns(group))
        mean = np.zeros((rows, len(columns)), np.float32)
        total = np.zeros((rows, 1), np.float32)
        for model, weight in weights.items():
            if weight > 0:
                places = np.searchsorted(labels.columns(models[model].group), columns)
                part = rank_scores(scores[model][:, places].astype(np.float32), manifest, model)
                known = ~np.isnan(part[:, :1])  # a row is NaN as a whole or not at all
                mean += np.where(known, np.float32(weight) * part, np.float32(0))
                total += np.float32(weight) * known
        blended[:, columns] = np.divide(mean, total, out=np.full_like(mean, np.nan), where=total > 0)
    return blended


def rank_scores(scores: NDArray[np.float32], manifest: Manifest, name: str) -> NDArray[np.float32]:
    """Return a model's scores as the blend takes them: their ranks from 0 to 1 where `ensemble.ranks` has the model."""
    scale = manifest.ensemble.ranks.get(name)
    if scale is None:
        return scores
    ranks = np.interp(scores, scale, np.linspace(0, 1, len(scale)))  # NaN stays NaN
    return ranks.astype(np.float32)


def gather_members(
    scores: Mapping[str, Scores], manifest: Manifest, labels: Labels, names: Sequence[str]
) -> NDArray[np.float32]:
    """Return each member's scores, the mean over its folds, (images, members, labels).

    `scores`: by model name, (images, labels of the model's group), NaN for images without predictions; models may be
    missing. The result is NaN if no fold of the member has a score, and for labels that the member does not cover.
    """
    rows = len(next(iter(scores.values())))
    gathered = np.full((rows, len(names), len(labels.ids)), np.nan, np.float32)
    members = list_members(manifest.models)
    for place, name in enumerate(names):
        folds = [scores[model.name].astype(np.float32) for model in members[name] if model.name in scores]
        if folds:
            gathered[:, place, labels.columns(members[name][0].group)] = _mean_folds(folds)
    return gathered


def gather_features(scores: Mapping[str, Scores], manifest: Manifest, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the outputs of members of group 'features' side by side, (images, sum of their outputs).

    `scores`: by model name, (images, outputs), NaN for images without predictions; models may be missing. The outputs
    of a member are the mean over its folds, NaN if no fold has any.
    """
    rows = len(next(iter(scores.values())))
    members = list_members(manifest.models)
    gathered = [np.empty((rows, 0), np.float32)]
    for name in names:
        folds = [scores[model.name].astype(np.float32) for model in members[name] if model.name in scores]
        gathered.append(_mean_folds(folds) if folds else np.full((rows, members[name][0].outputs), np.nan, np.float32))
    return np.concatenate(gathered, axis=1)


def fill_members(gathered: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace each NaN of `gather_members` by the mean of the members that have a score; by 0 if none has."""
    holes = np.isnan(gathered)
    if not holes.any():  # the usual case; for a large zoo the means below take longer than the trees
        return gathered
    means = np.nan_to_num(_mean_known(gathered, axis=1))
    return np.where(holes, means[:, None], gathered)


def _mean_folds(folds: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return folds[0] if len(folds) == 1 else _mean_known(np.stack(folds), axis=0)


def _mean_known(scores: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the mean of the values that are not NaN; NaN if all are."""
    known = ~np.isnan(scores)
    counts = known.sum(axis=axis, dtype=np.float32)
    sums = np.where(known, scores, np.float32(0)).sum(axis=axis, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float32] = sums / counts
    return mean
