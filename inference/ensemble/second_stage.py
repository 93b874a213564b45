"""From the models' scores to answers: the blend or its mix with the stackers, and the decision."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores, blend, gather_members
from inference.ensemble.decide import decide
from inference.ensemble.stackers import Inputs, StackerSession, Stage
from inference.manifest.labels import Labels
from inference.manifest.records import BLEND, Manifest, list_members, remove_stackers
from inference.task.answers import Answer, list_answers


def choose_answers(stage: Stage, scores: Mapping[str, Scores], traits: NDArray[np.float32]) -> list[Answer]:
    """Return the answer to each image.

    `scores`: by model name, (images, labels of the model's group), NaN for images without predictions; `traits`:
    (images, 4). A group without predictions gets its prior answer. The stackers were fitted to scores of all groups, so
    the blend decides for an image without predictions for one. Raises SessionError: a stacker fails.
    """
    task = stage.manifest.task
    blended = blend(scores, stage.manifest, stage.labels)
    whole = ~np.isnan(blended).any(axis=1)
    if not stage.stackers:
        return list_answers(decide(blended, stage.labels, stage.manifest.decision), stage.labels, task)
    decided = decide(blended, stage.labels, remove_stackers(stage.manifest).decision)
    if whole.any():
        own = {name: array[whole] for name, array in scores.items()}
        mixed = mix_scores(own, blended[whole], traits[whole], stage.manifest, stage.labels, stage.stackers)
        decided[whole] = decide(mixed, stage.labels, stage.manifest.decision)
    return list_answers(decided, stage.labels, task)


def mix_scores(
    scores: Mapping[str, Scores],
    blended: NDArray[np.float32],
    traits: NDArray[np.float32],
    manifest: Manifest,
    labels: Labels,
    stackers: Sequence[StackerSession],
) -> NDArray[np.float32]:
    """Mix the blend and the stackers by the weights `ensemble.mix`, (images, labels).

    `scores`: by model name, as for `blend`; `blended`: of all groups, (images, labels); `traits`: (images, 4). Raises
    SessionError: a stacker fails.
    """
    names = {name for one in stackers for name in one.stacker.members}
    order = [name for name in list_members(manifest.models) if name in names]
    members = gather_members(scores, manifest, labels, order)
    scored = {BLEND: blended}
    for one in stackers:
        own = members[:, [order.index(name) for name in one.stacker.members]]
        whole = np.zeros_like(blended)
        whole[:, labels.columns(one.stacker.group)] = one.score(Inputs(own, blended, traits))
        scored[one.stacker.name] = whole
    mixed = np.zeros_like(blended)
    for group in labels.groups:
        weights = manifest.ensemble.mix.get(group, {BLEND: 1.0})
        columns = np.array(labels.columns(group))
        for name, weight in weights.items():
            if weight > 0:
                mixed[:, columns] += np.float32(weight / sum(weights.values())) * scored[name][:, columns]
    return mixed
