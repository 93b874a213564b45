"""Many models' predictions to one score for each image and label."""

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
    """
    models = {model.name: model for model in manifest.models}
    rows = len(next(iter(scores.values())))
    blended = np.zeros((rows, len(labels.ids)), np.float32)
    for group, weights in manifest.ensemble.weights.items():
        columns = np.array(labels.columns(group))
        total = sum(weights.values())
        for name, weight in weights.items():
            if weight > 0:
                places = np.searchsorted(labels.columns(models[name].group), columns)
                blended[:, columns] += np.float32(weight / total) * scores[name][:, places].astype(np.float32)
    return blended
