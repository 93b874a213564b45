"""The plan between two chunks, the order of the chunks, and the stop at the time limit."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from inference.basics.errors import SessionError
from inference.images.geometry import Geometry
from inference.images.read import Picture
from inference.manifest.values import View
from inference.run import sweep
from inference.run.chunk import run_chunk
from inference.run.plan import Plan, list_groups
from inference.run.state import Job, State
from inference.run.sweep import (
    count_missing,
    find_time_to_read,
    measure_cover,
    order_chunks,
    revise_plan,
    run_sweep,
    stop_in_time,
)
from tests.inference.run.small_run import MANIFEST, Runner, open_run, paint

BOTH, NONE = frozenset({"c", "t"}), frozenset[str]()


def open_measured(left: float) -> State:
    """Return a run whose passes take 1 s (model `one`) and 2 s (`two`) per image: 6 s with both views of each."""
    _, state, _ = open_run(left)
    state.pace.note_pass("one", 1, 1)
    state.pace.note_pass("two", 1, 2)
    return state


def name_passes(plan: Plan) -> list[str]:
    return [str(one) for one in plan]


@pytest.mark.parametrize(
    ("left", "dropped"), [(63.1, set()), (62.9, {"two/hflip"}), (29, {"one/identity", "one/hflip", "two/hflip"})]
)
def test_the_first_plan_is_the_most_valuable_one_that_fits_with_a_margin(left: float, dropped: set[str]) -> None:
    state = open_measured(left)
    plan = revise_plan(state, state.passes, 10, BOTH)  # 1.05 * 6 s * 10 images
    assert set(name_passes(state.passes)) - set(name_passes(plan)) == dropped and state.planned
    assert list_groups(plan) == BOTH


def test_a_dropped_view_is_restored_only_if_it_fits_with_a_margin() -> None:
    state = open_measured(62.9)
    plan = revise_plan(state, state.passes, 10, BOTH)
    assert revise_plan(state, plan, 9, BOTH) == plan, "62.9 s are enough for 9 images, but without the margin"
    assert state.log.notes == ["two/hflip dropped for the next 10 images: 1:00 needed, 1:03 left"]
    assert revise_plan(state, plan, 8, BOTH) == state.passes  # 1.05 * 1.15 * 6 s * 8 images
    assert state.log.notes[1:] == ["two/hflip restored for the next 8 images: 0:32 needed, 1:03 left"]


def test_a_later_plan_drops_views_if_the_models_became_slower() -> None:
    state = open_measured(70)
    plan = revise_plan(state, state.passes, 10, BOTH)
    for _ in range(9):
        state.pace.note_pass("two", 1, 3)
    plan = revise_plan(state, plan, 10, BOTH)
    assert name_passes(plan) == ["two/identity", "one/identity", "one/hflip"], "the least value per second is dropped"


def test_a_further_sweep_restores_nothing_and_may_drop_the_last_model_of_a_group() -> None:
    state = open_measured(1000)
    state.planned = True
    plan = state.passes[:2]
    assert revise_plan(state, plan, 10, NONE) == plan
    state = open_measured(21)
    state.planned = True
    assert name_passes(revise_plan(state, plan, 10, NONE)) == ["one/identity"]


def test_a_model_that_was_not_measured_counts_as_slow_as_the_slowest() -> None:
    _, state, _ = open_run(62.9)
    state.pace.note_pass("one", 1, 1.5)  # 1.05 * 1.5 s * 4 passes * 10 images = 63 s
    assert len(revise_plan(state, state.passes, 10, BOTH)) == 3


def test_there_is_no_plan_without_images_or_a_measurement_but_failed_models_leave_it() -> None:
    for state, images in ((open_measured(0.1), 0), (open_run(0.1)[1], 10)):
        plan = state.passes
        state.passes = tuple(one for one in plan if one.model == "two")
        assert revise_plan(state, plan, images, BOTH) == state.passes
        assert not state.planned and state.log.notes == []


def test_the_chunks_that_a_killed_run_worked_on_come_last() -> None:
    job, state, _ = open_run(10, changes={"runtime": {"batch_size": 1}})
    assert order_chunks(job, state) == [0, 1, 2, 3, 4, 5], "there was no earlier run"
    state.suspects = frozenset({0, 2, 3})
    state.done = {1: set()}
    assert order_chunks(job, state) == [4, 5, 0, 2, 3]


def test_images_are_read_as_long_as_the_fastest_models_have_time_to_predict_them() -> None:
    job, state, _ = open_run(100)
    assert find_time_to_read(job, state) == pytest.approx(100 - 0.2 * state.pace.deadline.limit)
    state.pace.note_pass("one", 1, 1)
    state.cover = measure_cover(state)
    assert find_time_to_read(job, state) == pytest.approx(100 - 1.5 * 1 * 2), "of the models whose speed is known"
    state.pace.note_pass("two", 1, 4)  # which alone has the group t
    state.cover = measure_cover(state)
    assert find_time_to_read(job, state) == pytest.approx(100 - 1.5 * 4 * 2)


def test_the_images_without_a_pass_are_counted() -> None:
    job, state, _ = open_run(10, changes={"runtime": {"batch_size": 4}})
    state.done = {0: {"one/identity"}, 1: {"two/identity"}}
    found = [count_missing(job.list_chunks(), state, f"{name}/identity") for name in ("one", "two", "three")]
    assert found == [2, 4, 6]


class Sweep:
    """Runs of stand-ins over painted images; notes what was read, and the submissions in between."""

    def __init__(self, left: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[list[str]] = []
        """Passes for which the images of each sweep were read."""
        self.submitted: list[int] = []
        """Number of chunks that were done."""
        self.job, self.state, self.clock = open_run(left)
        self.state.runners = {"one": Runner(self.clock, 2), "two": Runner(self.clock, 4)}  # type: ignore[dict-item]
        monkeypatch.setattr(sweep, "read_chunks", self._read)
        monkeypatch.setattr(sweep, "improve_submission", lambda *_: self.submitted.append(len(self.state.done)))

    def _read(
        self, job: Job, state: State, todo: Sequence[int], geometries: Mapping[tuple[str, View], Geometry]
    ) -> Iterator[tuple[int, list[Picture]]]:
        self.read.append(sorted({f"{model}/{view}" for model, view in geometries}))
        for index in todo:
            yield index, [paint(0)] * len(job.list_chunks()[index])

    def run(self, kept: frozenset[str] = BOTH) -> bool:
        return run_sweep(self.job, self.state, self.state.passes, [0, 1, 2], kept)


def test_a_sweep_predicts_every_chunk_and_selects_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Sweep(1000, monkeypatch)
    assert run.run()
    assert run.state.done.keys() == run.state.answers.keys() == {0, 1, 2}
    assert not any(np.isnan(kept.array).any() for kept in run.job.predictions.values())
    assert run.state.pace.other() == 0, "the warm-up and the passes are no other work"


def test_a_sweep_ends_with_the_chunk_that_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Sweep(100 + 4 + 2.9, monkeypatch)  # two warm-ups, a view of each model; the next pass takes 1.5 * 2 s
    assert not run.run()
    assert run.state.done == {0: {"one/identity", "two/identity"}} and len(run.state.passes) == 4
    assert run.state.answers.keys() == {0}, "the labels of this chunk are selected all the same"


def test_a_further_sweep_reads_the_images_only_for_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Sweep(1000, monkeypatch)
    run.run()
    assert run_sweep(run.job, run.state, run.state.passes[:1], [1], NONE)
    assert run.read == [["one/hflip", "one/identity", "two/hflip", "two/identity"], ["two/identity"]]


def test_each_pass_has_the_geometry_of_its_scale() -> None:
    one, two = MANIFEST["models"]  # type: ignore[misc]
    views = ["identity", "scale_125", "scale_125+hflip"]
    job, state, _ = open_run(10, changes={"models": [{**one, "views": views}, {**two, "image_size": [48, 96]}]})  # type: ignore[dict-item]
    found = sweep.read_geometries(job, state.passes)
    assert {key: (geometry.shape, geometry.resized) for key, geometry in found.items()} == {
        ("one", "identity"): ((64, 64), (64, 64)),
        ("one", "scale_125"): ((64, 64), (80, 80)),
        ("one", "scale_125+hflip"): ((64, 64), (80, 80)),
        ("two", "identity"): ((48, 96), (48, 96)),
        ("two", "hflip"): ((48, 96), (48, 96)),
    }
    assert sweep.read_geometries(job, state.passes[:1]).keys() == {(state.passes[0].model, state.passes[0].view)}


def test_a_sweep_ends_if_no_model_works_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Sweep(1000, monkeypatch)
    for runner in run.state.runners.values():
        runner.fault = SessionError("broken")  # type: ignore[attr-defined]
    assert not run.run() and run.state.passes == () and run.state.done == {}


def test_a_chunk_that_runs_out_of_memory_is_postponed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Sweep(1000, monkeypatch)
    real = run_chunk

    def starve(job: Job, state: State, plan: Plan, index: int, *rest: Any) -> tuple[bool, float]:
        if index == 1:
            raise MemoryError("10 MB")
        return real(job, state, plan, index, *rest)

    monkeypatch.setattr(sweep, "run_chunk", starve)
    assert run.run() and run.state.done.keys() == {0, 2} and run.state.starved
    assert run.state.log.notes == ["out of memory: 2 images postponed to the end of the run: 10 MB"]
    with pytest.raises(MemoryError, match="10 MB"):
        run.run(kept=NONE)


def test_a_submission_is_due_after_a_minute_but_not_after_the_last_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Sweep(10_000, monkeypatch)
    run.run()
    assert run.submitted == [1, 2], "the stand-in does not note it, so it stays due"


def wait_for_watch() -> None:
    for thread in threading.enumerate():
        if thread.name == "time limit":
            thread.join(10)


def test_the_time_limit_stops_all_models_and_stackers() -> None:
    _, state, clock = open_run(10, stackers=1)
    state.runners = {"one": Runner(clock), "two": Runner(clock)}  # type: ignore[dict-item]
    clock.time += 10
    with stop_in_time(state):
        wait_for_watch()
        assert state.stopped
    assert all(one.stopped for one in (*state.runners.values(), *state.stage.stackers))  # type: ignore[attr-defined]


def test_work_that_ends_before_the_time_limit_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "LONGEST_WAIT", 0.01)
    _, state, clock = open_run(10, stackers=1)
    with stop_in_time(state):
        clock.time += 9.9
    wait_for_watch()
    clock.time += 10
    assert not state.stopped and not state.stage.stackers[0].stopped  # type: ignore[attr-defined]
