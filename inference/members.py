"""From the scores of models to those of members: a member is the models of one recipe, one a fold, and their mean."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.labels import Labels
from inference.manifest import Manifest, list_members

Scores = NDArray[np.floating[Any]]


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
