"""A zoo as its manifest declares it, and what its models say of images that they were not trained on."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.errors import TrainingError
from inference.labels import Labels, read_labels
from inference.manifest import ALL, Manifest, Model, name_member, read_manifest, verify_files
from training.data import Table
from training.out_of_fold import pool_predictions


@dataclass(frozen=True)
class Zoo:
    """A manifest, the folder that its paths start from, and its labels."""

    path: Path
    manifest: Manifest
    labels: Labels

    @property
    def home(self) -> Path:
        """Where the manifest lies."""
        return self.path.parent


@dataclass(frozen=True)
class Predictions:
    """What a blend of models says of images that they were not trained on.

    `rows`: places of the images in train.csv, ascending; `scores`: (rows, labels), 0 for labels of other groups than
    `groups`, which the models cover.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    groups: tuple[str, ...]

    def kinds(self, labels: Labels) -> tuple[str, ...]:
        """What an F2 can be given of: 'all' labels where every group is covered, and each of several groups."""
        whole = (ALL,) if len(self.groups) == len(labels.groups) else ()
        return whole if len(labels.groups) == 1 else (*whole, *self.groups)


def open_zoo(path: Path) -> Zoo:
    """A manifest with its labels; raises ManifestError or LabelsError."""
    manifest = read_manifest(path)
    verify_files([("labels", manifest.labels)], path.parent)
    return Zoo(path, manifest, read_labels(path.parent / manifest.labels.file, manifest.labels.groups))


def find_models(zoo: Zoo, names: Sequence[str]) -> list[Model]:
    """The models of these names, with or without the fold at the end, in the manifest's order.

    Raises TrainingError naming the nearest.
    """
    known = {name for model in zoo.manifest.models for name in (model.name, name_member(model))}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(known))}"
            raise TrainingError(f"{zoo.path}: no model {name!r}; {hint}")
    return [model for model in zoo.manifest.models if model.name in names or name_member(model) in names]


def pool_blend(zoo: Zoo, table: Table) -> Predictions:
    """The out-of-fold predictions of the manifest's blend, of two images at least, so that rules can be cross-fitted.

    Raises ManifestError or TrainingError naming the model and the file.
    """
    blend = pool_models(zoo, table)
    if len(blend.rows) < 2:
        raise TrainingError(f"{zoo.path}: its models held out one common image; wanted thousands, and 2 at least")
    return blend


def pool_models(zoo: Zoo, table: Table, models: Sequence[Model] | None = None) -> Predictions:
    """The out-of-fold predictions of these models with equal weights, or of the manifest's blend.

    Raises ManifestError or TrainingError naming the model and the file.
    """
    if models is None:
        covered = {group for group, weights in zoo.manifest.ensemble.weights.items() if any(weights.values())}
    else:
        covered = {group for model in models for group in zoo.manifest.groups_of(model)}
    if not covered:
        raise TrainingError(f"{zoo.path}: no model has a weight above 0; wanted one with out-of-fold predictions")
    rows, scores = pool_predictions(zoo.manifest, zoo.home, zoo.labels, table.ids, models)
    return Predictions(rows, scores, tuple(group for group in zoo.labels.groups if group in covered))
