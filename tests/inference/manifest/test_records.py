from inference.manifest.records import Runtime


def test_a_limit_of_zero_is_a_limit_and_only_a_missing_one_is_the_manifests() -> None:
    runtime = Runtime(time_limit=90)
    assert [runtime.choose_time_limit(given) for given in (None, 0.0, 7.5)] == [90, 0.0, 7.5]
