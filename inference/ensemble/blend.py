"""The weighted mean of what the models say, in a module that needs no ONNX Runtime: the notebook shows it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.labels import Labels
from inference.manifest import Manifest

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
