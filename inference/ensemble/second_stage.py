"""From what the models say to label ids: the stackers, the mix and the decision, or the blend where a stacker fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.blend import Scores
from inference.combine import leave_stackers_out, mix_scores
from inference.decide import decide, list_label_ids
from inference.errors import SessionError
from inference.labels import Labels
from inference.manifest import Manifest
from inference.run_log import RunLog
from inference.stackers import StackerSession, load_stackers

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
