"""Which stackers suit a task: those that do not are left out, with the reason."""

import dataclasses
from collections.abc import Sequence

from inference.manifest.labels import Labels
from inference.manifest.task import Task
from training.second_stage.fitted import APART, TOGETHER, TREES, LayerSettings
from training.second_stage.member_scores import FEWEST_STACKED

MOST_LABELS = 5000
"""More need too much memory: 24 kB per label for the weights of a CNN in training and 30 kB per label and member for
its activations; for the trees, 4 bytes per image, member and label, and as much for the filled-in scores."""
CNN_WEIGHTS, CNN_ACTIVATIONS = 24_000, 30_000
TREE_SCORES = 8


def choose_layers(
    settings: LayerSettings, task: Task, labels: Labels, images: int, members: int, unread: Sequence[str] = ()
) -> tuple[LayerSettings, dict[str, str]]:
    """Return the wanted layers that suit the task, and the reasons why the others are left out, by part.

    `images`, `members`: their numbers; `unread`: the groups without a member that held out enough images for stackers.
    """
    reasons = list_reasons(task, len(labels.ids), images, members)
    if unread:
        reason = f"no member of {' and '.join(unread)} held out at least {FEWEST_STACKED:.0%} of the images"
        reasons = {APART: reason, TREES: reason} | reasons
    if APART not in reasons and len(labels.groups) == 1:
        reasons[TOGETHER] = "there is one group of labels, so it would be the same network"
    given = {APART: settings.cnn, TOGETHER: settings.cnn and settings.together, TREES: settings.trees}
    left_out = {part: reason for part, reason in reasons.items() if given[part]}
    chosen = dataclasses.replace(
        settings,
        cnn=settings.cnn and APART not in left_out,
        together=settings.together and settings.cnn and not {APART, TOGETHER} & set(left_out),
        trees=settings.trees and TREES not in left_out,
        ranks=task.metric.name == "roc_auc",
    )
    return chosen, left_out


def list_reasons(task: Task, labels: int, images: int, members: int) -> dict[str, str]:
    """Return why the CNN and the trees do not suit the task; empty if both do."""
    if task.type == "regression":
        reason = "stackers are fitted to probabilities, and the scores of this task are numbers"
        return {APART: reason, TREES: reason}
    if labels > MOST_LABELS:
        cnn = labels * (CNN_WEIGHTS + CNN_ACTIVATIONS * members)
        trees = TREE_SCORES * images * members * labels
        return {
            part: f"about {needed / 1e9:.1f} GB of memory for {labels:,} labels; at most {MOST_LABELS:,} are supported"
            for part, needed in ((APART, cnn), (TREES, trees))
        }
    if labels == 1:
        return {TREES: "there is one label, so a pair of image and label has no other labels to be compared with"}
    return {}
