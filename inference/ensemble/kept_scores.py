"""The scores of a model for all images of a run: of every label, or only the best of each image."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.manifest.labels import Labels
from inference.manifest.model import FEATURES, Model
from inference.manifest.records import Manifest

Rows = slice | list[int]


class AllScores:
    """The scores of every label."""

    def __init__(self, images: int, labels: int, dtype: str) -> None:
        self.array: NDArray[Any] = np.full((images, labels), np.nan, dtype)
        """(images, labels); NaN where unknown."""
        self.labels = labels

    def read(self, rows: Rows) -> Scores:
        """Return the scores of some images, (rows, labels)."""
        return self.array[rows]

    def write(self, rows: Rows, scores: Scores) -> None:
        """Set the scores of some images, (rows, labels)."""
        self.array[rows] = scores

    def find_known(self) -> NDArray[np.bool_]:
        """Return which images have scores, (images,)."""
        known: NDArray[np.bool_] = ~np.isnan(self.array[:, 0])
        return known


class TopScores:
    """The best scores of each image, for a task in which those of an image add up to 1."""

    def __init__(self, images: int, labels: int, keep: int, dtype: str) -> None:
        self.array: NDArray[Any] = np.zeros((images, keep), [("column", np.int32), ("score", dtype)])
        """(images, keep) of column and score; NaN where unknown."""
        self.array["score"] = np.nan
        self.labels = labels

    def read(self, rows: Rows) -> Scores:
        """Return the scores of some images, (rows, labels) float32; see `spread_scores` for those that are not kept."""
        return spread_scores(self.array[rows], self.labels)

    def write(self, rows: Rows, scores: Scores) -> None:
        """Keep the best scores of some images; `scores`: (rows, labels)."""
        keep = self.array.shape[1]
        best = np.sort(np.argpartition(scores, -keep, axis=1)[:, -keep:], axis=1)
        part = np.empty(best.shape, self.array.dtype)
        part["column"], part["score"] = best, np.take_along_axis(scores, best, axis=1)
        self.array[rows] = part

    def find_known(self) -> NDArray[np.bool_]:
        """Return which images have scores, (images,)."""
        known: NDArray[np.bool_] = ~np.isnan(self.array["score"][:, 0])
        return known


KeptScores = AllScores | TopScores


def open_scores(manifest: Manifest, labels: Labels, images: int) -> dict[str, KeptScores]:
    """Return the scores of each model, all unknown: the best `runtime.keep_top`, or all if that is None.

    Of a model for features, all are kept.
    """
    opened = dict[str, KeptScores]()
    for model in manifest.models:
        own, keep = labels.count_outputs(model), _count_kept(manifest, labels, model)
        dtype = manifest.score_dtype(model)
        opened[model.name] = TopScores(images, own, keep, dtype) if keep else AllScores(images, own, dtype)
    return opened


def measure_scores(manifest: Manifest, labels: Labels, images: int) -> int:
    """Return the bytes of what `open_scores` returns."""
    row = 0
    for model in manifest.models:
        keep, size = _count_kept(manifest, labels, model), np.dtype(manifest.score_dtype(model)).itemsize
        row += keep * (size + np.dtype(np.int32).itemsize) if keep else labels.count_outputs(model) * size
    return row * images


def spread_scores(kept: NDArray[Any], labels: int) -> NDArray[np.float32]:
    """Return the scores of all labels, (rows, labels), from the `array` of TopScores, (rows, keep).

    The labels that are not kept share what is missing to 1 equally, each at most the smallest score that is kept.
    """
    scores = kept["score"].astype(np.float32)
    others = max(labels - scores.shape[1], 1)
    rest = np.clip((1 - scores.sum(axis=1)) / others, 0, scores.min(axis=1))  # NaN stays NaN
    dense = np.repeat(rest[:, None], labels, axis=1)
    np.put_along_axis(dense, kept["column"].astype(np.int64), scores, axis=1)
    return dense


def load_scores(path: Path, count: int, labels: int) -> Scores:
    """Read the scores of the first `count` images from a file that a run wrote, (images, labels)."""
    saved = np.load(path, mmap_mode="r", allow_pickle=False)[:count]
    return spread_scores(saved, labels) if saved.dtype.names else saved


def _count_kept(manifest: Manifest, labels: Labels, model: Model) -> int:
    keep, own = manifest.runtime.keep_top, len(labels.columns(model.group))
    return keep if keep is not None and keep < own and model.group != FEATURES else 0
