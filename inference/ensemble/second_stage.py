"""From what the models say to label ids: the stackers, the mix and the decision, or the blend where a stacker fails."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import SessionError
from inference.basics.run_log import RunLog
from inference.ensemble.blend import Scores, blend, gather_members
from inference.ensemble.decide import decide, list_label_ids
from inference.ensemble.stackers import Inputs, StackerSession, load_stackers
from inference.manifest.labels import Labels
from inference.manifest.records import BLEND, Manifest, list_members


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


ROWS = 128  # images scored and decided at a time, so that memory does not grow with their number


@dataclass(frozen=True)
class Stage:
    """A manifest's second stage, its stackers loaded."""

    manifest: Manifest
    labels: Labels
    stackers: tuple[StackerSession, ...]


def open_stage(manifest: Manifest, labels: Labels, folder: Path, log: RunLog) -> Stage:
    """The second stage of a bundle; of its blend alone, and the log says so, where a stacker does not load."""
    try:
        return Stage(manifest, labels, load_stackers(manifest, labels, folder))
    except SessionError as error:
        log.note_degraded(f"{error}; the blend decides alone")
        return Stage(leave_stackers_out(manifest), labels, ())


def choose_labels(
    stage: Stage, scores: Mapping[str, Scores], traits: NDArray[np.float32], log: RunLog
) -> tuple[Stage, list[tuple[int, ...]]]:
    """Label ids of each image, ascending, the prior's where models of a group are lacking; and the stage that did it.

    `scores`: by model name, (images, labels of the model's group), NaN where a model has not seen an image; `traits`:
    (images, 4). Where a stacker fails, the blend decides for all images, and the log says so.
    """
    try:
        return stage, _choose(stage, scores, traits)
    except SessionError as error:
        log.note_degraded(f"{error}; the blend decides alone")
        alone = Stage(leave_stackers_out(stage.manifest), stage.labels, ())
        return alone, _choose(alone, scores, traits)


def _choose(stage: Stage, scores: Mapping[str, Scores], traits: NDArray[np.float32]) -> list[tuple[int, ...]]:
    manifest, labels = stage.manifest, stage.labels
    chosen: list[tuple[int, ...]] = []
    for start in range(0, len(traits), ROWS):
        part = {name: array[start : start + ROWS] for name, array in scores.items()}
        # Along the way most images have not been seen: the stackers need not look at them.
        seen = ~np.all([np.isnan(array[:, 0]) for array in part.values()], axis=0)
        given = [tuple(sorted(manifest.decision.prior))] * len(seen)
        if seen.any():
            own = {name: array[seen] for name, array in part.items()}
            mixed = mix_scores(own, traits[start : start + ROWS][seen], manifest, labels, stage.stackers)
            known = ~np.isnan(mixed.sum(axis=1))
            taken = list_label_ids(decide(np.nan_to_num(mixed), labels, manifest.decision), labels)
            for place, is_known, ids in zip(np.flatnonzero(seen), known, taken, strict=True):
                given[place] = ids if is_known else given[place]
        chosen += given
    return chosen
