"""What each member of the second stage held out, and what its scores are used for."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from inference.manifest.labels import Labels
from inference.manifest.model import FEATURES, Model
from inference.manifest.task import Task
from training.second_stage.fitted import LayerSettings, list_stacked
from training.second_stage.member_scores import FEWEST_STACKED, MemberScores
from zoo.text import NAMED, align_columns


@dataclass(frozen=True)
class MemberInput:
    """A row of the table of members."""

    name: str
    images: int
    """That it held out, among those of the fit."""
    share: float
    """Of the images of the fit."""
    groups: tuple[str, ...]
    """That it covers; none for a member of group 'features'."""
    use: str
    """What its scores are used for, or why not."""


def list_inputs(members: MemberScores, settings: LayerSettings) -> tuple[MemberInput, ...]:
    """Describe each member, those for features last; `settings`: the layers that are fitted."""
    few = f"fewer than {FEWEST_STACKED:.0%} of the images"
    rows = []
    for name, groups in zip(members.names, members.covers, strict=True):
        stacked = "blend and stackers" if name in members.stacked else f"blend; not the stackers: {few}"
        rows.append((name, groups, stacked if settings.cnn or settings.trees else "blend"))
    for name in members.features:
        read = "features, read by the trees" if name in members.stacked_features else f"not read: {few}"
        rows.append((name, (), read if settings.trees else "not read: no trees are fitted"))
    counts = [int(members.list_held_out(name).sum()) for name, _, _ in rows]
    total = len(members.rows)
    return tuple(
        MemberInput(name, count, count / total, groups, use)
        for (name, groups, use), count in zip(rows, counts, strict=True)
    )


def list_unread_groups(members: MemberScores, labels: Labels) -> list[str]:
    """List the groups of which stackers read no member."""
    return [group for group in labels.groups if not list_stacked(members, labels, group)]


def describe_members(members: MemberScores, inputs: Iterable[MemberInput], labels: Labels, task: Task) -> str:
    """Describe the input, and name the labels without an image: stackers cannot learn them."""
    number, rows = len(members.names), len(members.rows)
    counts = np.sum([members.list_held_out(name) for name in members.names], axis=0)
    least, most = int(counts.min()), int(counts.max())
    if members.coverage is None:
        lines = [f"{number} members, {rows} images held out by all of them"]
    else:
        span = str(most) if least == most else f"{least} to {most}"
        lines = [f"{number} members, {rows} images with scores for every group, each held out by {span} of the members"]
    table = [("member", "groups", "use", "images", "share")]
    table += [
        (one.name, ", ".join(one.groups) or "-", one.use, f"{one.images:,}", f"{one.share:.0%}") for one in inputs
    ]
    lines += align_columns(table, left=3)
    absent = [labels.names[column] for column in np.flatnonzero(~members.truth.any(axis=0))]
    if absent and task.has_probabilities:
        shown = ", ".join(absent[:NAMED]) + ", …" * (len(absent) > NAMED)
        lines.append(f"{len(absent)} labels have no image and keep the blend's score: {shown}")
    return "\n".join(lines)


def list_split_members(models: Iterable[Model]) -> list[list[str]]:
    """List the models that look like folds of one network but are members of their own, by network.

    They have the same architecture, size, group and resizing, different folds, and no declared member.
    """
    alike: dict[tuple[object, ...], list[Model]] = {}
    for model in models:
        if model.member is None and model.fold is not None:
            key = (model.architecture, model.factory and model.factory.sha256, model.size, model.group, model.resize)
            alike.setdefault(key, []).append(model)
    return [
        [model.name for model in part]
        for part in alike.values()
        if len({model.fold for model in part}) == len(part) > 1 and part[0].group != FEATURES
    ]
