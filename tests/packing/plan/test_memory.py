from dataclasses import replace

import pytest

from inference.manifest.bundle import read_declared
from packing.accelerators import find_accelerator
from packing.plan.memory import estimate_memory
from packing.plan.run_plan import describe_plan, make_plan
from packing.plan.work import Work, count_work
from tests.conftest import Workshop
from zoo.networks import Design

SERESNEXT = "legacy_seresnext101_32x4d"
MEASURED = ((1, 2.02), (3, 5.46), (10, 17.32))


def test_the_estimate_adds_weights_activations_squares_and_scores(workshop: Workshop) -> None:
    """The workshop has models of 64 px, with two interpolations, and of 48 px."""
    manifest, labels = read_declared(workshop.home)
    works = [Work(0, 0, weights=100 * 10**6, widest=10**6)] * 3
    size = estimate_memory(manifest, labels, works, images=4_000_000)
    scores, squares = 4_000_000 * (5 + 2 + 3) * 2, 4 * 32 * 3 * (2 * 64**2 + 48**2)
    assert size == pytest.approx(150e6 + 3 * (30e6 + 240e6 + 64e6) + scores + squares)
    smaller = replace(manifest, runtime=replace(manifest.runtime, batch_size=16))
    assert size - estimate_memory(smaller, labels, works, 4_000_000) == pytest.approx(3 * 32e6 + squares / 2)


def test_the_widest_operation_of_a_network_is_that_of_its_first_blocks() -> None:
    """The sum of two inputs to one output, each 256 channels of 80x80 float32."""
    assert count_work(Design(SERESNEXT, (320, 320), 46)).widest == 3 * 256 * 80 * 80 * 4


@pytest.mark.parametrize(("models", "measured"), MEASURED)
def test_the_estimate_is_within_a_quarter_of_the_measured_peak(
    models: int, measured: float, workshop: Workshop
) -> None:
    """`measured`: GB, by benchmarks/memory.py with 64 images at 320 px on two cores."""
    manifest, labels = read_declared(workshop.home)
    model = replace(manifest.models[0], image_size=320)
    works = [count_work(Design(SERESNEXT, (320, 320), 46))] * models
    size = estimate_memory(replace(manifest, models=(model,) * models), labels, works, 64)
    assert 0.75 < size / 1e9 / measured < 1.25


def test_the_plan_states_the_peak_memory_and_warns_if_it_is_too_large(workshop: Workshop) -> None:
    plan = make_plan(workshop.manifest, find_accelerator("CPU"), 1000)
    assert plan.memory == estimate_memory(*read_declared(workshop.home), [model.work for model in plan.models], 1000)
    for size, line in (
        (30.94e9, "peak memory about 30.9 GB of Kaggle's 31 GB, on the CPU"),
        (
            31.26e9,
            "peak memory about 31.3 GB on the CPU, MORE THAN Kaggle's 31 GB; reduce `runtime.batch_size` or the models",
        ),
    ):
        assert line in describe_plan(replace(plan, memory=size)).splitlines()
