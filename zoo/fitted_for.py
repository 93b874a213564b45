"""What a second stage was fitted for: a hash of the task, the labels and the models, to detect an outdated fit."""

import dataclasses
import hashlib
import json
from typing import Any

from inference.manifest.model import Model
from inference.manifest.records import Manifest


def hash_fitted(manifest: Manifest) -> str:
    """Return the SHA-256 of all that a second stage depends on, as 64 hexadecimal digits.

    The task's type, metric and activation; labels.csv, its groups and exchanged labels; of each model its name, member,
    group, fold, views and their merge, outputs and their order, activation, checkpoint and out-of-fold predictions.
    File names, exported files, limits and the second stage itself do not count.
    """
    task, labels = manifest.task, manifest.labels
    document = {
        "task": [task.type, dataclasses.asdict(task.metric), task.activation],
        "labels": [labels.sha256, dict(labels.groups), dict(labels.exchanged)],
        "models": [_list_parts(model) for model in manifest.models],
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def is_stale(manifest: Manifest) -> bool:
    """Return whether the second stage was fitted for other models, labels or another task than the manifest has."""
    fitted_for = manifest.ensemble.fitted_for
    return fitted_for is not None and fitted_for != hash_fitted(manifest)


def describe_changes(manifest: Manifest) -> str:
    """Return how the models differ from those of a stale second stage, as in 'added: a, b'.

    `ensemble.values` names every model of the fit. The hash does not tell which model was changed or removed.
    """
    fitted = manifest.ensemble.values
    added = [model.name for model in manifest.models if fitted and model.name not in fitted]
    if added:
        return f"added: {', '.join(added)}"
    return "a model was removed, or its files, views or entries, the labels or the task changed"


def _list_parts(model: Model) -> list[Any]:
    declared = model.out_of_fold
    return [
        model.name,
        model.member,
        model.group,
        model.fold,
        model.views,
        model.merge,
        model.outputs,
        model.label_order,
        model.activation,
        model.checkpoint and model.checkpoint.sha256,
        declared and [declared.scores.sha256, declared.ids.sha256],
    ]
