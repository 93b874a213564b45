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
    choose_returns,
    drop_passes,
    find_fastest,
    list_groups,
    list_passes,
    return_passes,
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
    """Every plan in which no spare view stands without its model's best one."""
    for size in range(len(passes) + 1):
        for plan in itertools.combinations(passes, size):
            bases = {one.model for one in plan if not one.spare}
            if all(one.model in bases for one in plan):
                yield plan


def add_values(plan: Plan) -> float:
    return sum(one.value for one in plan)


def test_the_plan_is_the_most_valuable_of_all_sets_that_fit() -> None:
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
        # Times are rounded up to parts of 1/500, by which the best set of all may just not fit.
        rounded = [one for one in fitting if add_seconds(one, seconds) <= allowed * (1 - 8 / 500)]
        assert max(map(add_values, rounded), default=0.0) <= add_values(plan) <= max(map(add_values, fitting))
        shortened += len(plan) < len(passes)
    assert shortened > 20


def test_where_nothing_fits_the_fastest_set_with_every_group_is_taken() -> None:
    random = np.random.default_rng(1)
    for _ in range(40):
        passes, seconds = draw_zoo(random, 5)
        covering = [one for one in list_subsets(passes) if list_groups(one) == list_groups(passes)]
        fastest = min(add_seconds(one, seconds) for one in covering)
        for allowed in (-1.0, 0.0, 1e-6):
            assert add_seconds(choose_passes(passes, seconds, allowed), seconds) == pytest.approx(fastest)


A, A2 = Pass("a", "identity", 4.0, False, ("c", "t")), Pass("a", "hflip", 1.0, True, ("c", "t"))
B, B2 = Pass("b", "identity", 3.0, False, ("c",)), Pass("b", "hflip", 2.0, True, ("c",))
C = Pass("c", "identity", 1.0, False, ("t",))
ALL = (A, B, C, A2, B2)
SECONDS = {"a": 1.0, "b": 2.0, "c": 1.0}  # 7 in all


@pytest.mark.parametrize(
    ("allowed", "kept"),
    [
        (7.0, ALL),
        (6.9, (A, B, C, B2)),  # spare views are worth 1 and 1 a second; of equals, the first
        (5.9, (A, B, C)),
        (3.9, (A, B)),  # models are worth 4, 1.5 and 1 a second
        (2.9, (A,)),
        (0.1, (A,)),  # the last model of a group stays
    ],
)
def test_what_is_least_valuable_a_second_goes_first_and_views_before_models(allowed: float, kept: Plan) -> None:
    assert drop_passes(ALL, SECONDS, allowed, BOTH) == kept


def test_the_last_model_of_a_group_stays_even_where_it_is_worth_the_least() -> None:
    assert drop_passes((B, C, B2), SECONDS, 0.5, BOTH) == (B, C)
    assert drop_passes((B, C), SECONDS, 0.5, frozenset()) == (B,), "on a further way the last pass stays"


def test_what_was_dropped_returns_most_valuable_first_and_a_spare_view_only_beside_its_model() -> None:
    assert return_passes((A,), ALL, SECONDS, 3.0) == (A, B)
    assert return_passes((A,), ALL, SECONDS, 2.5) == (A, C)
    assert return_passes((A,), ALL, SECONDS, 5.5) == (A, B, B2)
    assert return_passes((A,), ALL, SECONDS, 0.5) == (A,)
    assert return_passes((A, B), ALL, SECONDS, 100.0) == ALL


def test_another_way_through_the_images_brings_what_fits_and_the_most_valuable_in_any_case() -> None:
    lacking = {B: 10, C: 100, A2: 100}
    assert choose_returns(lacking, SECONDS, 0.5, 25.0) == (B,)
    assert choose_returns(lacking, SECONDS, 0.5, 126.0) == (B, C)
    assert choose_returns(lacking, SECONDS, 0.5, 1.0) == (B,)
    assert choose_returns({}, SECONDS, 0.5, 1.0) == ()


def make_manifest(values: dict[str, dict[str, float]]) -> dict[str, object]:
    model = {"architecture": "x", "image_size": 64, "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}
    return {
        "labels": {"file": "labels.csv", "sha256": "0" * 64, "groups": {"c": "c::", "t": "t::"}},
        "models": [{"name": "one", "group": "c", **model}, {"name": "two", "group": "all", **model}],
        "ensemble": {"weights": {"c": {"one": 1, "two": 1}, "t": {"two": 1}}, "values": values},
        "decision": {
            "groups": {group: {"threshold": 0.5, "minimum": 0, "maximum": 2} for group in "ct"},
            "prior": [0],
        },
    }


def describe(plan: Plan) -> list[tuple[str, float, bool]]:
    return [(str(one), one.value, one.spare) for one in plan]


def test_without_values_a_second_view_is_worth_half_and_what_covers_most_runs_first() -> None:
    plan = list_passes(parse_manifest(make_manifest({})))
    assert describe(plan) == [
        ("two/identity", 1.0, False),
        ("one/identity", 1.0, False),
        ("one/hflip", 0.5, True),
        ("two/hflip", 0.5, True),
    ]
    assert [one.groups for one in plan[:2]] == [("c", "t"), ("c",)]


def test_the_manifests_values_say_which_view_is_spare() -> None:
    values = {"one": {"identity": 0.001, "hflip": 0.004}, "two": {"identity": 0.01}}
    assert describe(list_passes(parse_manifest(make_manifest(values)))) == [
        ("two/identity", 0.01, False),
        ("one/hflip", 0.004, False),
        ("one/identity", 0.001, True),
        ("two/hflip", 0.0, True),
    ]
