"""Many models' predictions to one score for each image and label."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inference.labels import Labels
from inference.manifest import BLEND, Manifest, list_members
from inference.members import gather_members

if TYPE_CHECKING:
    from inference.stackers import StackerSession

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


def mix_scores(
    scores: Mapping[str, Scores],
    traits: NDArray[np.float32],
    manifest: Manifest,
    labels: Labels,
    stackers: Sequence["StackerSession"],
) -> NDArray[np.float32]:
    """One score for each image and label, (images, labels): the blend and the stackers by `ensemble.mix`.

    `scores`: by model name, as for `blend`; `traits`: (images, 4). NaN where no model has seen an image. Raises
    SessionError where a stacker fails.
    """
    # Here, as the notebook shows the blend in a process that has no ONNX Runtime.
    from inference.stackers import Inputs

    blended = blend(scores, manifest, labels)
    if not manifest.ensemble.mix:
        return blended
    names = {name for one in stackers for name in one.stacker.members}
    order = [name for name in list_members(manifest.models) if name in names]
    members = gather_members(scores, manifest, labels, order)
    scored = {BLEND: np.nan_to_num(blended)}
    for one in stackers:
        own = members[:, [order.index(name) for name in one.stacker.members]]
        whole = np.zeros_like(blended)
        whole[:, labels.columns(one.stacker.group)] = one.score(Inputs(own, scored[BLEND], traits))
        scored[one.stacker.name] = whole
    mixed = np.zeros_like(blended)
    for group in labels.groups:
        weights = manifest.ensemble.mix.get(group, {BLEND: 1.0})
        columns = np.array(labels.columns(group))
        for name, weight in weights.items():
            if weight > 0:
                mixed[:, columns] += np.float32(weight / sum(weights.values())) * scored[name][:, columns]
    mixed[np.isnan(blended)] = np.nan
    return mixed


def leave_stackers_out(manifest: Manifest) -> Manifest:
    """The manifest as it is without a second stage: the blend alone, decided by the rules that were fitted to it."""
    return dataclasses.replace(
        manifest,
        ensemble=dataclasses.replace(manifest.ensemble, stackers=(), mix={}),
        decision=dataclasses.replace(
            manifest.decision,
            groups=manifest.decision.fallback or manifest.decision.groups,
            rule="thresholds",
            calibration={},
            fallback={},
        ),
    )
