"""The notes on what a submission lacks, and the files that a run writes."""

from pathlib import Path

import numpy as np
import pytest

from inference.run.results import find_predicted, note_missing, write_predictions
from inference.run.state import ChunkAnswers, Job, State
from tests.inference.run.small_run import IDS, MANIFEST, Clock, open_run

LIMIT = "not enough time before the time limit of 0:11"


def open_predicted(left: float = 10.0, stackers: int = 0) -> tuple[Job, State, Clock]:
    """Return a run in which every pass has run on every image."""
    job, state, clock = open_run(left, stackers)
    for kept in job.predictions.values():
        kept.array[:] = 0.5
    state.done = {index: {str(one) for one in state.passes} for index in range(3)}
    state.answers = {index: ChunkAnswers([(0,)] * 2, bool(stackers)) for index in range(3)}
    return job, state, clock


def test_a_complete_run_has_no_notes() -> None:
    for stackers in (0, 1):
        job, state, _ = open_predicted(stackers=stackers)
        note_missing(job, state)
        assert state.log.degraded == []


def test_images_without_predictions_get_the_prior_labels_for_want_of_time() -> None:
    job, state, clock = open_predicted()
    for name, rows in (("one", [4, 5]), ("two", [2, 3, 4, 5])):
        job.predictions[name].array[rows] = np.nan
    state.done = {0: state.done[0], 1: {"one/identity", "one/hflip"}, 2: set()}
    clock.time += 10
    note_missing(job, state)
    assert state.log.degraded == [
        f"2 of 6 images get the prior labels: {LIMIT}",
        f"2 of 6 images get the prior labels of t: {LIMIT}",
        f"two/identity dropped for 2 of 6 images: {LIMIT}",
        f"two/hflip dropped for 2 of 6 images: {LIMIT}",
    ]


def test_unreadable_images_are_not_lost_for_want_of_time() -> None:
    job, state, _ = open_predicted()
    for kept in job.predictions.values():
        kept.array[1] = np.nan
    state.log.unreadable["b"] = "out of memory while decoding"
    note_missing(job, state)
    assert state.log.degraded == ["1 of 6 images get the prior labels: out of memory while reading them"]


@pytest.mark.parametrize(
    ("starved", "stopped", "late", "cause"),
    [
        (False, False, 0, LIMIT),
        (True, False, 0, "out of memory"),
        (True, False, 9.9, "out of memory"),
        (True, True, 0, LIMIT),
        (True, False, 10, LIMIT),
    ],
)
def test_the_cause_is_memory_only_if_time_was_left(starved: bool, stopped: bool, late: float, cause: str) -> None:
    job, state, clock = open_predicted()
    state.done[1].remove("one/hflip")
    state.starved, state.stopped = starved, stopped
    clock.time += late
    note_missing(job, state)
    assert state.log.degraded == [f"one/hflip dropped for 2 of 6 images: {cause}"]


@pytest.mark.parametrize(
    ("lost", "late", "reason"),
    [
        ("ct", 0, "images get the prior labels: no working model for c and t"),
        ("t", 0, "images get the prior labels of t: no working model for it"),
        ("t", 10, f"images get the prior labels of t: {LIMIT}"),
    ],
)
def test_a_group_whose_models_failed_is_named(lost: str, late: float, reason: str) -> None:
    job, state, clock = open_predicted()
    for name in ("two", "one")[: len(lost)]:
        job.predictions[name].array[:] = np.nan
        state.passes = tuple(one for one in state.passes if one.model != name)
    clock.time += late  # if time ran out while loading, the models may work
    note_missing(job, state)
    assert state.log.degraded == [f"6 of 6 {reason}"]


def test_images_that_the_stackers_did_not_see_are_counted() -> None:
    job, state, _ = open_predicted(stackers=1)
    state.answers |= {index: ChunkAnswers([(0,)] * 2, False) for index in (0, 2)}
    note_missing(job, state)
    assert state.log.degraded == [f"stackers dropped for 4 of 6 images: {LIMIT}"]


def test_images_that_lack_the_features_of_a_stacker_are_counted() -> None:
    one, two = MANIFEST["models"]  # type: ignore[misc]
    wide = {**one, "group": "features", "outputs": 6, "member": "eyes"}  # type: ignore[dict-item]
    folds = [{**wide, "name": f"eyes_{fold}", "fold": fold} for fold in (0, 1)]
    trees = {"name": "trees", "kind": "trees", "group": "all", "members": ["one"], "features": ["eyes"], "parity": 0}
    trees |= {"onnx": {"file": "trees.onnx", "sha256": "0" * 64}}
    second = {**MANIFEST["ensemble"], "stackers": [trees], "mix": {"c": {"trees": 1}}}  # type: ignore[dict-item]
    job, state, _ = open_run(10.0, 1, changes={"models": [one, two, *folds], "ensemble": second})
    for kept in job.predictions.values():
        kept.array[:] = 0.5
    state.done = {index: {str(one) for one in state.passes} for index in range(3)}
    state.log.unreadable["b"] = "torn"
    for name, rows in (("eyes_0", [0, 1, 2, 3]), ("eyes_1", [1, 2, 3, 4]), ("one", [3]), ("two", [3])):
        job.predictions[name].array[rows] = np.nan  # image d has nothing
    bare = f"1 of 6 images get the prior labels: {LIMIT}"
    note_missing(job, state)
    features = "the blend decides for 1 of 6 images: they lack the features of eyes, which the stackers read"
    assert bare in state.log.degraded and features in state.log.degraded
    assert sum("features" in note for note in state.log.degraded) == 1
    state.log.degraded.clear()
    state.stage = state.stage.drop_stackers()
    note_missing(job, state)
    assert not any("features" in note for note in state.log.degraded), "nothing reads them"


def test_a_model_without_a_weight_in_a_group_predicts_nothing_of_it() -> None:
    weights = {"weights": {"c": {"one": 0, "two": 1}, "t": {"two": 1}}}
    job, _, _ = open_run(10, changes={"ensemble": weights})
    job.predictions["one"].array[:] = 0.5
    job.predictions["two"].array[[1, 4]] = 0.5
    assert np.flatnonzero(find_predicted(job, "c")).tolist() == [1, 4]


def test_predictions_are_written_until_the_deadline(tmp_path: Path) -> None:
    job, state, clock = open_predicted()
    write_predictions(tmp_path, IDS, job.predictions, state)
    assert (tmp_path / "ids.txt").read_text().split() == list(IDS)
    for name, wanted in job.predictions.items():
        found = np.load(tmp_path / f"{name}.npy")
        assert found.dtype == np.float16 and (found == wanted.array).all()
    clock.time += 11
    late = tmp_path / "late"
    late.mkdir()
    write_predictions(late, IDS, job.predictions, state)
    assert [path.name for path in late.iterdir()] == ["ids.txt"]
    assert state.log.notes == [f"{late}: no time left to write the predictions of one and later models"]
