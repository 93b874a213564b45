"""The answer to an image, as it is written: label ids in their order, or a number per label."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.task import Task

Answer = Sequence[int] | NDArray[np.float64]
"""Label ids in the order to write, or one value per label in the competition's units."""


def list_answers(matrix: NDArray[Any], labels: Labels, task: Task) -> list[Answer]:
    """Return the answer to each image; `matrix`: (images, labels), what `decide` returns."""
    form = task.submission
    if not form.holds_labels:
        values = matrix.astype(np.float64)
        if form.content == "number":
            low, high = task.value_range
            values = low + values * (high - low)
        return list(values)
    if form.top_k is None:
        return [tuple(sorted(labels.ids[column] for column in np.flatnonzero(row))) for row in matrix]
    ranked = np.argsort(-matrix.astype(np.float64), axis=1, kind="stable")[:, : form.top_k]
    return [tuple(labels.ids[column] for column in row) for row in ranked.tolist()]
