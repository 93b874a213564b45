"""From the models' scores to label ids: stackers, mix and decision, or the blend if a stacker fails."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import SessionError
from inference.basics.run_log import RunLog
from inference.ensemble.blend import Scores, blend, gather_members
from inference.ensemble.decide import decide, list_label_ids
from inference.ensemble.stackers import Inputs, StackerSession, Stage, load_stackers
from inference.manifest.labels import Labels
from inference.manifest.records import BLEND, Manifest, list_members, remove_stackers

ROWS = 128  # images that are scored at once, so that memory does not grow with the number of images


def mix_scores(
    scores: Mapping[str, Scores],
    traits: NDArray[np.float32],
    manifest: Manifest,
    labels: Labels,
    stackers: Sequence[StackerSession],
) -> NDArray[np.float32]:
    """Mix the blend and the stackers by the weights `ensemble.mix`, (images, labels).

    `scores`: by model name, as for `blend`; `traits`: (images, 4). The result is NaN where the blend is. Raises
    SessionError: a stacker fails.
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


def open_stage(manifest: Manifest, labels: Labels, folder: Path, log: RunLog) -> Stage:
    """Load the second stage of a bundle; if a stacker does not load, note it and use the blend alone."""
    try:
        return Stage(manifest, labels, load_stackers(manifest, labels, folder))
    except SessionError as error:
        log.note_degraded(f"{error}; the blend decides instead")
        return Stage(remove_stackers(manifest), labels, ())


def choose_labels(
    stage: Stage, scores: Mapping[str, Scores], traits: NDArray[np.float32], log: RunLog
) -> tuple[Stage, list[tuple[int, ...]]]:
    """Select the labels of each image; return the stage that was used and the label ids, ascending.

    `scores`: by model name, (images, labels of the model's group), NaN for images without predictions; `traits`:
    (images, 4). An image without predictions for a group gets the prior labels. If a stacker fails, the blend decides
    for all images, with a note in the log.
    """
    try:
        return stage, _choose(stage, scores, traits)
    except SessionError as error:
        log.note_degraded(f"{error}; the blend decides instead")
        alone = Stage(remove_stackers(stage.manifest), stage.labels, ())
        return alone, _choose(alone, scores, traits)


def _choose(stage: Stage, scores: Mapping[str, Scores], traits: NDArray[np.float32]) -> list[tuple[int, ...]]:
    manifest, labels = stage.manifest, stage.labels
    chosen: list[tuple[int, ...]] = []
    for start in range(0, len(traits), ROWS):
        part = {name: array[start : start + ROWS] for name, array in scores.items()}
        # During the run most images have no predictions yet: skip them.
        seen = ~np.all([np.isnan(array[:, 0]) for array in part.values()], axis=0)
        own_labels = [tuple(sorted(manifest.decision.prior))] * len(seen)
        if seen.any():
            own = {name: array[seen] for name, array in part.items()}
            mixed = mix_scores(own, traits[start : start + ROWS][seen], manifest, labels, stage.stackers)
            known = ~np.isnan(mixed.sum(axis=1))
            selected = list_label_ids(decide(np.nan_to_num(mixed), labels, manifest.decision), labels)
            for place, is_known, ids in zip(np.flatnonzero(seen), known, selected, strict=True):
                own_labels[place] = ids if is_known else own_labels[place]
        chosen += own_labels
    return chosen
