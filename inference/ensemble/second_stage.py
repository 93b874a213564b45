"""From the models' scores to answers: the blend or its mix with further blends and stackers, and the decision."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores, blend, gather_features, gather_members
from inference.ensemble.decide import decide
from inference.ensemble.stackers import Inputs, StackerSession, Stage, list_used_blends
from inference.manifest.labels import Labels
from inference.manifest.model import list_members
from inference.manifest.records import BLEND, Manifest, remove_stackers
from inference.task.answers import Answer, list_answers


def choose_answers(stage: Stage, scores: Mapping[str, Scores], traits: NDArray[np.float32]) -> list[Answer]:
    """Return the answer to each image.

    `scores`: by model name, (images, labels of the model's group), NaN for images without predictions; `traits`:
    (images, 4). A group without predictions gets its prior answer. The mix was fitted to scores of all groups and to
    all features, so the main blend decides for an image that lacks a group in a blend of the mix, or the outputs of a
    member in `stacker.features`, as if a deadline has dropped that model. Raises SessionError: a stacker fails.
    """
    manifest, labels, task = stage.manifest, stage.labels, stage.manifest.task
    used = list_used_blends(manifest)
    blends = {name: blend(scores, manifest, labels, name) for name in (BLEND, *(used.keys() - {BLEND}))}
    if not stage.stackers and used.keys() == {BLEND}:
        return list_answers(decide(blends[BLEND], labels, manifest.decision), labels, task)
    whole = ~np.isnan(blends[BLEND]).any(axis=1)
    for name, groups in used.items():
        for group in groups:
            whole &= ~np.isnan(blends[name][:, labels.columns(group)]).any(axis=1)
    for one in stage.stackers:
        whole &= ~np.isnan(gather_features(scores, manifest, one.stacker.features)).any(axis=1)
    decided = decide(blends[BLEND], labels, remove_stackers(manifest).decision)
    if whole.any():
        own = {name: array[whole] for name, array in scores.items()}
        complete = {name: blended[whole] for name, blended in blends.items()}
        mixed = mix_scores(own, complete, traits[whole], manifest, labels, stage.stackers)
        decided[whole] = decide(mixed, labels, manifest.decision)
    return list_answers(decided, labels, task)


def mix_scores(
    scores: Mapping[str, Scores],
    blends: Mapping[str, NDArray[np.float32]],
    traits: NDArray[np.float32],
    manifest: Manifest,
    labels: Labels,
    stackers: Sequence[StackerSession],
) -> NDArray[np.float32]:
    """Mix blends and stackers by the weights `ensemble.mix`, (images, labels).

    `scores`: by model name, as for `blend`; `blends`: the main one and those that the mix and the trees read, by
    name, (images, labels); `traits`: (images, 4). Raises SessionError: a stacker fails.
    """
    names = {name for one in stackers for name in one.stacker.members}
    order = [name for name in list_members(manifest.models) if name in names]
    members = gather_members(scores, manifest, labels, order)
    scored, shape = dict(blends), (len(members), len(labels.ids))
    for one in stackers:
        own = members[:, [order.index(name) for name in one.stacker.members]]
        features = gather_features(scores, manifest, one.stacker.features)
        blended = blends.get(one.stacker.blend, blends[BLEND])  # a CNN reads none
        whole = np.zeros(shape, np.float32)
        whole[:, labels.columns(one.stacker.group)] = one.score(Inputs(own, blended, traits, features))
        scored[one.stacker.name] = whole
    mixed = np.zeros(shape, np.float32)
    for group in labels.groups:
        weights = manifest.ensemble.mix.get(group, {BLEND: 1.0})
        columns = np.array(labels.columns(group))
        for name, weight in weights.items():
            if weight > 0:
                mixed[:, columns] += np.float32(weight / sum(weights.values())) * scored[name][:, columns]
    return mixed
