"""When the stackers select the labels, and when the blend alone does."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from inference.basics.errors import SessionError
from inference.ensemble.stackers import Stage
from inference.run import answers
from inference.run.answers import answer_chunk, answer_missing, choose_stage, list_chosen, stack_rest
from inference.run.state import ChunkAnswers
from tests.inference.run.small_run import Clock, open_run

STACKED, BLENDED = (0,), (2,)


def choose_slowly(
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    stacked: float,
    blended: float = 0.0,
    first: float | None = None,
    faults: Sequence[Exception | None] = (),
) -> list[tuple[bool, int]]:
    """Select labels at these seconds per image; return the calls: (with stackers, images).

    `first`: seconds of the first call of the stackers; `faults`: what their calls raise.
    """
    calls: list[tuple[bool, int]] = []
    coming = iter(faults)

    def choose(stage: Stage, scores: Mapping[str, np.ndarray], traits: np.ndarray) -> list[tuple[int, ...]]:
        assert {len(array) for array in scores.values()} == {len(traits)}
        is_first, images = (True, 1) not in calls, len(traits)
        calls.append((bool(stage.stackers), images))
        if not stage.stackers:
            clock.time += blended * images
            return [BLENDED] * images
        clock.time += first if first is not None and is_first else stacked * images
        if fault := next(coming, None):
            raise fault
        return [STACKED] * images

    monkeypatch.setattr(answers, "choose_answers", choose)
    return calls


@pytest.mark.parametrize(("seconds", "stacked"), [(4.9, True), (5.1, False)])
def test_before_their_cost_is_known_the_stackers_may_take_a_tenth_of_the_time_left(
    seconds: float, stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, state, clock = open_run(100, stackers=1)
    choose_slowly(monkeypatch, clock, seconds)
    answer_chunk(job, state, 0, stacked=True)
    assert state.answers == {0: ChunkAnswers([STACKED if stacked else BLENDED] * 2, stacked)}
    assert state.pace.choose(True) == pytest.approx(seconds), "the cost is known from now on"


def test_the_slow_first_call_of_the_stackers_is_no_measure_of_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    job, state, clock = open_run(100, stackers=1)
    calls = choose_slowly(monkeypatch, clock, 0.5, first=50)
    assert answer_chunk(job, state, 0, stacked=True) == pytest.approx(50 + 0.5 + 2 * 0.5)
    assert state.answers[0].stacked and calls == [(True, 1), (True, 1), (True, 2)]
    assert state.pace.choose(True) == pytest.approx(0.5), "without the two measurements"


@pytest.mark.parametrize(("left", "stacked"), [(15.1, True), (14.9, False)])
def test_stackers_of_known_cost_are_used_if_they_fit_with_a_margin(
    left: float, stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, state, clock = open_run(left, stackers=1)
    calls = choose_slowly(monkeypatch, clock, 5, blended=0.25)
    state.pace.note_choice(True, 1, 5)  # 1.5 * 5 s * 2 images
    spent = answer_chunk(job, state, 2, stacked=True)
    assert calls == [(stacked, 2)] and state.answers[2].stacked is stacked
    assert spent == pytest.approx(10 if stacked else 0.5)
    assert state.pace.choose(False) == (0 if stacked else 0.25)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (SessionError("stacker cnn fails"), "stacker cnn fails"),
        (MemoryError("10 MB"), "stackers: out of memory (10 MB)"),
    ],
)
def test_after_a_failure_of_a_stacker_the_blend_decides_for_all_images(
    fault: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, state, clock = open_run(1000, stackers=1)
    choose_slowly(monkeypatch, clock, 1, faults=[None, None, None, fault])  # two calls measure the cost
    answer_chunk(job, state, 0, stacked=True)
    assert state.answers[0].stacked
    answer_chunk(job, state, 1, stacked=True)
    assert state.answers == {0: ChunkAnswers([BLENDED] * 2, False), 1: ChunkAnswers([BLENDED] * 2, False)}
    assert state.log.degraded == [f"{reason}; the blend decides instead"] and not state.stage.stackers


def test_stackers_that_the_time_limit_stops_keep_their_earlier_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    job, state, clock = open_run(1000, stackers=1)
    choose_slowly(monkeypatch, clock, 1, faults=[None, None, None, SessionError("terminated")])
    answer_chunk(job, state, 0, stacked=True)
    state.stopped = True
    answer_chunk(job, state, 1, stacked=True)
    assert state.answers == {0: ChunkAnswers([STACKED] * 2, True), 1: ChunkAnswers([BLENDED] * 2, False)}
    assert state.log.degraded == [] and not state.stacked


@pytest.mark.parametrize("fault", [SessionError("broken"), MemoryError("full")])
def test_nothing_replaces_a_blend_that_fails(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    job, state, _ = open_run(1000)

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(answers, "choose_answers", fail)
    with pytest.raises(type(fault), match=str(fault)):
        answer_chunk(job, state, 0, stacked=False)


def test_an_answer_of_the_stackers_is_not_replaced_by_one_of_the_blend(monkeypatch: pytest.MonkeyPatch) -> None:
    job, state, clock = open_run(1000, stackers=1)
    choose_slowly(monkeypatch, clock, 1)
    for stacked in (True, False):
        answer_chunk(job, state, 0, stacked)
    assert state.answers[0] == ChunkAnswers([STACKED] * 2, True)
    for stacked in (False, True):
        answer_chunk(job, state, 1, stacked)
    assert state.answers[1].stacked, "the stackers replace the blend"


@pytest.mark.parametrize(("left", "stacked"), [(24.1, [True, True, True]), (23.9, [False, True, True])])
def test_stacking_the_chunks_of_an_earlier_run_takes_at_most_half_of_the_time_left(
    left: float, stacked: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, state, clock = open_run(left, stackers=1)
    choose_slowly(monkeypatch, clock, 2)
    state.pace.note_choice(True, 1, 2)  # 12 s for the six images
    state.pace.note_choice(False, 1, 9)
    state.done = {index: set() for index in (2, 0, 1)}
    answer_missing(job, state)
    assert [state.answers[index].stacked for index in range(3)] == stacked


def test_only_predicted_chunks_without_an_answer_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    job, state, clock = open_run(1000, stackers=1)
    calls = choose_slowly(monkeypatch, clock, 0)
    state.done, state.answers, state.stacked = {0: set(), 2: set()}, {0: ChunkAnswers([STACKED] * 2, True)}, False
    answer_missing(job, state)
    assert calls == [(False, 2)] and state.answers[2] == ChunkAnswers([BLENDED] * 2, False)
    assert list_chosen(job, state) == [STACKED] * 2 + [(1, 3)] * 2 + [BLENDED] * 2, "prior labels for the others"


def test_stackers_are_dropped_if_they_leave_no_time_for_a_model_of_each_group_and_restored_with_a_margin() -> None:
    _, state, _ = open_run(105, stackers=1)
    state.pace.note_chunk(1, 1)
    state.pace.note_choice(True, 1, 2)  # of ten seconds per image, seven are left for the models
    for cover, stacked in ((6.99, True), (7.01, False), (6.2, False), (6.0, True)):
        choose_stage(state, 10, cover)
        assert state.stacked is stacked, cover
    assert state.log.notes == [
        "stackers dropped for the next 10 images: 1:40 needed, 1:45 left",
        "stackers restored for the next 10 images: 1:30 needed, 1:45 left",
    ]


def test_without_stackers_there_is_nothing_to_drop() -> None:
    _, state, _ = open_run(1)
    choose_stage(state, 10, 100.0)
    assert state.stacked and state.log.notes == []


def test_the_rest_is_stacked_as_far_as_the_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    job, state, clock = open_run(20, stackers=1)
    choose_slowly(monkeypatch, clock, 3)
    blended = {index: ChunkAnswers([BLENDED] * 2, False) for index in range(3)}
    state.answers = dict(blended)
    stack_rest(job, state)
    assert state.answers == blended, "the cost is not known"
    state.pace.note_choice(True, 1, 3)
    state.stopped = True
    stack_rest(job, state)
    assert state.answers == blended
    state.stopped = False
    stack_rest(job, state)  # 1.5 * 3 s * 2 images = 9 s of 20, then of 14, then of 8
    assert [state.answers[index].stacked for index in range(3)] == [True, True, False]
