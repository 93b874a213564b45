"""The values of members, where no other member has a weight and where one held out only a part of the images."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import log_loss

from inference.manifest.decision import Decision
from inference.manifest.model import Model
from inference.manifest.records import Ensemble, LabelsEntry, Manifest
from tests.training.second_stage.drawn import TASKS, draw_members, name_labels
from training.second_stage.fitted import LayerSettings
from training.second_stage.judge import judge_methods
from training.second_stage.member_scores import MemberScores, measure_coverage
from training.second_stage.member_values import divide_values, measure_members


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


def cover_partly(members: MemberScores, held_out: dict[str, np.ndarray]) -> MemberScores:
    """Return the members as if some had held out only these images."""
    scores = members.scores.copy()
    known = np.ones(scores.shape[:2], np.bool_)
    for name, rows in held_out.items():
        known[:, members.names.index(name)] = np.isin(np.arange(len(scores)), rows)
    scores[~known] = np.nan
    partial = dataclasses.replace(members, scores=scores)
    return dataclasses.replace(partial, coverage=measure_coverage(partial, known))


def test_a_member_with_few_images_is_measured_where_others_have_scores_too() -> None:
    task = TASKS["log loss of one"]
    labels = name_labels(task)
    members = cover_partly(draw_members(task, 240, seed=6), {"good": np.arange(100), "fair": np.arange(50, 240)})
    settings = LayerSettings(cnn=False, together=False, trees=False)
    nested = judge_methods(members, labels, task, settings, 2, lambda line: None)
    found = measure_members(members, labels, task, nested, "blend", "scores")
    lost = []
    for outer in nested.outer:
        weights, clip = outer.layers.weights["labels"], outer.rules["scores"].fitted.clip

        def answer(row: int, names: list[str], weights: dict = weights, clip: float = clip) -> float:
            known = [name for name in names if not np.isnan(members.scores[row, members.names.index(name), 0])]
            own = [float(members.scores[row, members.names.index(name), 0]) for name in known]
            return float(np.clip(np.average(own, weights=[weights[name] for name in known]), clip, 1 - clip))

        for row in outer.held_out:
            others = [name for name in ("fair", "noise") if weights[name] > 0 and (name != "fair" or row >= 50)]
            if row < 100 and others:
                true = members.truth[row, 0]
                chances = [answer(row, names) for names in (list(members.names), ["fair", "noise"])]
                whole, without = (-np.log(chance if true else 1 - chance) for chance in chances)
                lost.append(without - whole)
    assert 20 < len(lost) <= 100
    assert found["good"] == pytest.approx(np.mean(lost), abs=1e-5)


def test_members_without_a_common_image_are_measured_against_the_prior() -> None:
    task = TASKS["log loss of one"]
    labels = name_labels(task)
    thirds = {name: np.arange(place, 240, 3) for place, name in enumerate(("good", "fair", "noise"))}
    members = cover_partly(draw_members(task, 240, seed=6), thirds)
    settings = LayerSettings(cnn=False, together=False, trees=False)
    nested = judge_methods(members, labels, task, settings, 2, lambda line: None)
    found = measure_members(members, labels, task, nested, "blend", "scores")
    assert found["good"] > found["noise"]
    assert found["good"] > 0.05


def test_every_model_has_a_share_of_its_members_value_for_each_of_its_views() -> None:
    model = Model("a", "x", "all", 32, (0.5,), (0.5,), "bicubic", views=("identity", "vflip", "scale_125_hflip"))
    twin = dataclasses.replace(model, name="b", member="pair", views=("identity",))
    other = dataclasses.replace(twin, name="c", fold=1)
    eyes = Model("eyes", "x", "features", 32, (0.5,), (0.5,), "bicubic", outputs=9, views=("top_left",))
    zoo = Manifest(
        LabelsEntry("labels.csv", "a" * 64, {"g": ""}), (model, twin, other, eyes), Ensemble({}), Decision({}, {})
    )
    assert divide_values({"a": 0.3, "pair": 0.2, "eyes": 0.5}, zoo) == {
        "a": {"identity": 0.1, "vflip": 0.1, "scale_125_hflip": 0.1},
        "b": {"identity": 0.1},
        "c": {"identity": 0.1},
        "eyes": {"top_left": 0.5},
    }
