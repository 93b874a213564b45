"""The blend and the stackers to one score for each image and label."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.blend import Scores, blend
from inference.labels import Labels
from inference.manifest import BLEND, Manifest, list_members
from inference.members import gather_members
from inference.stackers import Inputs, StackerSession


def mix_scores(
    scores: Mapping[str, Scores],
    traits: NDArray[np.float32],
    manifest: Manifest,
    labels: Labels,
    stackers: Sequence[StackerSession],
) -> NDArray[np.float32]:
    """One score for each image and label, (images, labels): the blend and the stackers by `ensemble.mix`.

    `scores`: by model name, as for `blend`; `traits`: (images, 4). NaN where no model has seen an image. Raises
    SessionError where a stacker fails.
    """
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
