"""The value of a member where no other member has a weight."""

import dataclasses

import pytest
from sklearn.metrics import log_loss

from tests.training.second_stage.drawn import TASKS, draw_members, name_labels
from training.second_stage.fitted import LayerSettings
from training.second_stage.judge import judge_methods
from training.second_stage.member_values import measure_members


def test_without_the_only_member_an_image_gets_the_frequencies_as_in_the_kernel() -> None:
    task = TASKS["log loss of one"]
    members, labels = draw_members(task, 240, seed=6), name_labels(task)
    settings = LayerSettings(cnn=False, together=False, trees=False)
    nested = judge_methods(members, labels, task, settings, 2, lambda line: None)
    only, *others = members.names
    weights = {group: dict.fromkeys(others, 0.0) | {only: 1.0} for group in labels.groups}
    alone = [dataclasses.replace(one, layers=dataclasses.replace(one.layers, weights=weights)) for one in nested.outer]
    found = measure_members(members, labels, task, dataclasses.replace(nested, outer=alone), "blend", "scores")
    wanted = 0.0
    for outer in alone:
        truth = members.truth[outer.held_out, 0]
        outside = [row for row in range(len(members.rows)) if row not in set(outer.held_out.tolist())]
        frequency = float(members.truth[outside, 0].mean())
        blend = members.scores[outer.held_out, members.names.index(only), 0].astype(float)
        clip = outer.rules["scores"].fitted.clip
        lost = log_loss(truth, [frequency] * len(truth)) - log_loss(truth, blend.clip(clip, 1 - clip))
        wanted += lost * len(truth) / len(members.rows)
    assert found[only] == pytest.approx(wanted, abs=1e-6)
    assert [found[name] for name in others] == [0.0] * len(others)
