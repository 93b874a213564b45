import pytest

from inference.manifest.records import Runtime


def test_a_limit_of_zero_is_a_limit_and_only_a_missing_one_is_the_manifests() -> None:
    runtime = Runtime(time_limit=90)
    assert [runtime.choose_time_limit(given) for given in (None, 0.0, 7.5)] == [90, 0.0, 7.5]


def test_a_short_limit_keeps_a_tenth_for_the_notebook() -> None:
    limits = (32400.0, 3000.0, 2999.0, 9.0, 0.0)
    assert [Runtime().choose_reserve(limit) for limit in limits] == pytest.approx([300, 300, 299.9, 0.9, 0])
    assert Runtime(notebook_reserve=0).choose_reserve(32400.0) == 0
