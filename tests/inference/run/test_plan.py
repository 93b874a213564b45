import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from inference.manifest.file import parse_manifest
from inference.run.plan import (
    Pass,
    Plan,
    add_seconds,
    choose_passes,
    choose_remaining,
    drop_passes,
    find_fastest,
    list_groups,
    list_passes,
    restore_passes,
)

BOTH = frozenset({"c", "t"})


def draw_zoo(random: np.random.Generator, models: int) -> tuple[Plan, dict[str, float]]:
    passes = [
        Pass(f"m{model}", view, float(random.integers(1, 20)) / (2 if spare else 1), spare, tuple(groups))
        for model in range(models)
        for groups in [random.choice(["c", "t", "ct"])]
        for view, spare in (("identity", False), ("hflip", True))
    ]
    return tuple(passes), {f"m{model}": float(random.uniform(0.1, 3)) for model in range(models)}


def list_subsets(passes: Plan) -> Iterator[Plan]:
    """Yield every plan in which each spare view comes with the best view of its model."""
    for size in range(len(passes) + 1):
        for plan in itertools.combinations(passes, size):
            bases = {one.model for one in plan if not one.spare}
            if all(one.model in bases for one in plan):
                yield plan


def add_values(plan: Plan) -> float:
    return sum(one.value for one in plan)


def test_the_plan_is_the_set_of_highest_value_that_fits() -> None:
    random = np.random.default_rng(0)
    shortened = 0
    for _ in range(60):
        passes, seconds = draw_zoo(random, 4)
        groups = list_groups(passes)
        allowed = float(random.uniform(0.1, 1.1)) * add_seconds(passes, seconds)
        plan = choose_passes(passes, seconds, allowed)
        fitting = [
            one for one in list_subsets(passes) if add_seconds(one, seconds) <= allowed and list_groups(one) == groups
        ]
        if not fitting:
            assert plan == find_fastest(passes, seconds)
            continue
        assert plan in fitting
        # Times are rounded up to parts of 1/500, so the best set may exceed the time by the rounding.
        rounded = [one for one in fitting if add_seconds(one, seconds) <= allowed * (1 - 8 / 500)]
        assert max(map(add_values, rounded), default=0.0) <= add_values(plan) <= max(map(add_values, fitting))
        shortened += len(plan) < len(passes)
    assert shortened > 20


def test_if_no_set_fits_the_plan_is_the_fastest_set_with_every_group() -> None:
    random = np.random.default_rng(1)
    for _ in range(40):
        passes, seconds = draw_zoo(random, 5)
        covering = [one for one in list_subsets(passes) if list_groups(one) == list_groups(passes)]
        fastest = min(add_seconds(one, seconds) for one in covering)
        for allowed in (-1.0, 0.0, 1e-6):
            plan = choose_passes(passes, seconds, allowed)
            assert add_seconds(plan, seconds) == pytest.approx(fastest)
            assert list_groups(plan) == list_groups(passes) and not any(one.spare for one in plan)


A, A2 = Pass("a", "identity", 4.0, False, ("c", "t")), Pass("a", "hflip", 1.0, True, ("c", "t"))
B, B2 = Pass("b", "identity", 3.0, False, ("c",)), Pass("b", "hflip", 2.0, True, ("c",))
C = Pass("c", "identity", 1.0, False, ("t",))
ALL = (A, B, C, A2, B2)
SECONDS = {"a": 1.0, "b": 2.0, "c": 1.0}  # 7 in all


@pytest.mark.parametrize(
    ("allowed", "kept"),
    [
        (7.0, ALL),
        (6.9, (A, B, C, B2)),  # both spare views have value 1 per second: the first is dropped
        (5.9, (A, B, C)),
        (3.9, (A, B)),  # the models have values 4, 1.5 and 1 per second
        (2.9, (A,)),
        (0.1, (A,)),  # the last model of a group is kept
    ],
)
def test_the_lowest_value_per_second_is_dropped_first_and_views_before_models(allowed: float, kept: Plan) -> None:
    assert drop_passes(ALL, SECONDS, allowed, BOTH) == kept


def test_the_last_model_of_a_group_is_kept_even_with_the_lowest_value() -> None:
    assert drop_passes((B, C, B2), SECONDS, 0.5, BOTH) == (B, C)
    assert drop_passes((B, C), SECONDS, 0.5, frozenset()) == (B,), "a further sweep keeps the last pass"


def test_of_passes_that_take_no_time_all_are_kept() -> None:
    assert drop_passes((A, B), {"a": 0.0, "b": 2.0}, 1.0, frozenset()) == (A,)


def test_passes_are_restored_by_value_and_a_spare_view_only_with_its_model() -> None:
    assert restore_passes((A,), ALL, SECONDS, 3.0) == (A, B)
    assert restore_passes((A,), ALL, SECONDS, 2.5) == (A, C)
    assert restore_passes((A,), ALL, SECONDS, 5.5) == (A, B, B2)
    assert restore_passes((A,), ALL, SECONDS, 0.5) == (A,)
    assert restore_passes((A, B), ALL, SECONDS, 100.0) == ALL


def test_a_spare_view_is_not_restored_without_a_view_of_its_model() -> None:
    spare = Pass("b", "hflip", 9.0, True, ("c",))  # more valuable than its base, which does not fit
    assert restore_passes((A,), (A, dataclasses.replace(B, value=10.0), spare), SECONDS | {"b": 2.0}, 2.9) == (A,)
    assert restore_passes((A,), (A, C, spare), SECONDS | {"b": 0.1}, 2.9) == (A, C)


def test_a_further_sweep_counts_the_reading_of_the_images_once() -> None:
    missing = {B: 10, C: 10}
    assert choose_remaining(missing, SECONDS, 0.5, 25.0) == (B,), "20 s, and 5 s for reading"
    assert choose_remaining(missing, SECONDS, 0.5, 24.9) == (C,)
    assert choose_remaining(missing, SECONDS, 0.5, 35.0) == (B, C), "not read again for the second model"
    assert choose_remaining(missing, SECONDS, 0.5, 34.9) == (B,)
    assert choose_remaining({C: 10, B: 10}, SECONDS, 2.0, 39.0) == (C,), "20 s and 20 s for reading do not fit for b"


def test_a_further_sweep_runs_the_passes_that_fit_and_always_the_most_valuable_one() -> None:
    missing = {B: 10, C: 100, A2: 100}
    assert choose_remaining(missing, SECONDS, 0.5, 25.0) == (B,)
    assert choose_remaining(missing, SECONDS, 0.5, 126.0) == (B, C)
    assert choose_remaining(missing, SECONDS, 0.5, 1.0) == (B,)
    assert choose_remaining({}, SECONDS, 0.5, 1.0) == ()


def make_manifest(values: dict[str, dict[str, float]]) -> dict[str, object]:
    model = {"architecture": "x", "image_size": 64, "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}
    return {
        "labels": {"file": "labels.csv", "sha256": "0" * 64, "groups": {"c": "c::", "t": "t::"}},
        "models": [{"name": "one", "group": "c", **model}, {"name": "two", "group": "all", **model}],
        "ensemble": {"weights": {"c": {"one": 1, "two": 1}, "t": {"two": 1}}, "values": values},
        "decision": {
            "groups": {group: {"threshold": 0.5, "minimum": 0, "maximum": 2} for group in "ct"},
            "prior": {"c": [0], "t": []},
        },
    }


def describe(plan: Plan) -> list[tuple[str, float, bool]]:
    return [(str(one), one.value, one.spare) for one in plan]


def test_without_values_a_second_view_has_half_the_value_and_models_of_most_groups_run_first() -> None:
    plan = list_passes(parse_manifest(make_manifest({})))
    assert describe(plan) == [
        ("two/identity", 1.0, False),
        ("one/identity", 1.0, False),
        ("one/hflip", 0.5, True),
        ("two/hflip", 0.5, True),
    ]
    assert [one.groups for one in plan[:2]] == [("c", "t"), ("c",)]


def test_the_values_of_the_manifest_determine_which_view_is_spare() -> None:
    values = {"one": {"identity": 0.001, "hflip": 0.004}, "two": {"identity": 0.01}}
    assert describe(list_passes(parse_manifest(make_manifest(values)))) == [
        ("two/identity", 0.01, False),
        ("one/hflip", 0.004, False),
        ("one/identity", 0.001, True),
        ("two/hflip", 0.0, True),
    ]


def test_a_model_for_features_runs_if_a_stacker_that_is_used_reads_it_and_counts_for_no_group() -> None:
    document = make_manifest({})
    one = document["models"][0]  # type: ignore[index]
    document["models"] += [
        {**one, "name": f"eyes_{fold}", "group": "features", "outputs": 7, "member": "eyes", "fold": fold}
        for fold in (0, 1)
    ]  # type: ignore[operator]
    trees = {"name": "trees", "kind": "trees", "group": "all", "members": ["two"], "features": ["eyes"], "parity": 0}
    trees |= {"onnx": {"file": "trees.onnx", "sha256": "0" * 64}}
    for weight, models in ((0, {"one", "two"}), (1, {"one", "two", "eyes_0", "eyes_1"})):
        mix = {"c": {"blend": 1, "trees": weight}, "t": {"blend": 1}}
        document["ensemble"] = {**document["ensemble"], "stackers": [trees], "mix": mix}  # type: ignore[dict-item]
        plan = list_passes(parse_manifest(document))
        assert {one.model for one in plan} == models
    assert {one.groups for one in plan if one.model.startswith("eyes")} == {()}
    assert [one.model for one in plan if not one.spare] == ["two", "one", "eyes_0", "eyes_1"]
    fastest = find_fastest(plan, {"one": 1.0, "two": 2.0, "eyes_0": 0.1, "eyes_1": 0.1})
    assert {one.model for one in fastest} == {"two"}, "they give no image an answer"


def test_models_of_a_further_blend_run_if_the_mix_or_the_trees_of_the_mix_read_it() -> None:
    document = make_manifest({})
    weights = {"c": {"two": 1}, "t": {"two": 1}}
    theirs = {"c": {"one": 1, "two": 0}, "t": {"two": 1}}
    trees = {"name": "trees", "kind": "trees", "group": "all", "members": ["two"], "blend": "theirs", "parity": 0}
    trees |= {"onnx": {"file": "trees.onnx", "sha256": "0" * 64}}
    for mix, models in (
        ({}, {"two"}),
        ({"c": {"blend": 1}, "t": {"theirs": 1}}, {"two"}),  # for which `one` has no weight
        ({"c": {"blend": 1, "theirs": 0}}, {"two"}),
        ({"c": {"blend": 1, "theirs": 1}}, {"one", "two"}),
        ({"c": {"trees": 1}}, {"one", "two"}),
        ({"t": {"trees": 1}}, {"two"}),
    ):
        document["ensemble"] = {"weights": weights, "blends": {"theirs": theirs}, "mix": mix, "stackers": [trees]}
        plan = list_passes(parse_manifest(document))
        assert {one.model for one in plan} == models, mix
        assert all(one.groups == (("c", "t") if one.model == "two" else ()) for one in plan), "of the main blend"


def test_models_that_nothing_reads_are_left_out() -> None:
    document = make_manifest({})
    document["ensemble"] = {"weights": {"c": {"one": 0, "two": 1}, "t": {"two": 1}}}
    assert {one.model for one in list_passes(parse_manifest(document))} == {"two"}
    stacker = {
        "name": "cnn",
        "kind": "cnn",
        "group": "c",
        "members": ["one", "two"],
        "onnx": {"file": "cnn.onnx", "sha256": "0" * 64},
        "parity": 0,
    }
    for weight, models in ((0, {"two"}), (1, {"one", "two"})):
        document["ensemble"] |= {"stackers": [stacker], "mix": {"c": {"blend": 1, "cnn": weight}, "t": {"blend": 1}}}
        found = list_passes(parse_manifest(document))
        assert {one.model for one in found} == models
    assert [one.groups for one in found if one.model == "one"] == [(), ()]
