"""The passes of one chunk, with stand-ins for models whose scores are the brightness of an image."""

import numpy as np
import pytest

from inference.basics.errors import ImageError, LateError, OutputError, SessionError
from inference.ensemble.kept_scores import AllScores
from inference.images.geometry import list_geometries
from inference.images.read import Picture
from inference.manifest.values import Merge
from inference.run.chunk import add_views, has_time_to_measure, join_views, run_chunk
from inference.run.plan import Pass, Plan
from inference.run.state import TRAITS_NAME, Job, State
from inference.run.sweep import read_geometries
from tests.inference.run.small_run import MANIFEST, Clock, Runner, open_run, paint

ROWS = range(2, 4)  # of chunk 1
SPARE = {"one/hflip", "two/hflip"}
FIRST = {"one/identity", "two/identity"}


def merge_slowly(views: np.ndarray, merge: str) -> np.ndarray:
    """Merge views, (views, rows, labels), by the definition of each mean, in float64."""
    exact = views.astype(np.float64)
    if merge == "maximum":
        return np.asarray(exact.max(axis=0))
    return np.asarray(exact.prod(axis=0) ** (1 / len(views)) if merge == "geometric" else exact.mean(axis=0))


@pytest.mark.parametrize("merge", ["mean", "geometric", "maximum"])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_further_views_are_merged_with_those_kept_by_their_number(before: int, merge: Merge) -> None:
    random = np.random.default_rng(before)
    views = random.random((6, 4, 2)).astype(np.float32)  # (views, rows, labels)
    kept = AllScores(9, 2, "float16")
    rows = [1, 3, 4, 8]
    if before:
        kept.write(rows, merge_slowly(views[:before], merge))
    parts = [(1, views[before]), (5 - before, merge_slowly(views[before + 1 :], merge).astype(np.float32))]
    add_views(kept, rows, parts, before, merge)
    np.testing.assert_allclose(kept.read(rows), merge_slowly(views, merge), atol=1e-3)
    assert np.isnan(kept.read([0, 2, 5, 6, 7])).all()


@pytest.mark.parametrize("before", [0, 1, 2, 5])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_mean_is_the_sum_in_float32_in_the_order_of_the_calls(before: int, dtype: str) -> None:
    """Scores are rounded to the bit as in earlier versions, so that a submission keeps its bytes."""
    random = np.random.default_rng(before)
    parts = [(count, random.random((50, 7)).astype(np.float32)) for count in (2, 1, 1, 3)]
    kept, wanted = AllScores(50, 7, dtype), AllScores(50, 7, dtype)
    for scores in (kept, wanted):
        scores.write(list(range(50)), random.random((50, 7)) if scores is kept else kept.array)
    total = np.float32(2) * parts[0][1]
    for count, scores in parts[1:]:
        total = total + np.float32(count) * scores
    if before:
        total = total + np.float32(before) * wanted.array.astype(np.float32)
    wanted.array[:] = total / np.float32(before + 7)
    add_views(kept, list(range(50)), parts, before, "mean")
    assert kept.array.tobytes() == wanted.array.tobytes()


class Store:
    """A stand-in that notes its commits, or has a full disk."""

    def __init__(self, is_full: bool = False) -> None:
        self.commits: list[tuple[object, ...]] = []
        self.removed, self._is_full = False, is_full

    def commit(self, *given: object) -> None:
        if self._is_full:
            raise OutputError("the disk is full")
        self.commits.append(given)

    def remove(self) -> None:
        self.removed = True


def open_chunk(left: float = 1000.0) -> tuple[Job, State, Clock]:
    job, state, clock = open_run(left)
    state.runners = {"one": Runner(clock, 2), "two": Runner(clock, 4)}  # type: ignore[dict-item]
    state.store, state.planned = Store(), True  # type: ignore[assignment]
    return job, state, clock


def show(
    job: Job, state: State, *pictures: Picture | ImageError, plan: Plan | None = None, planned: bool = True
) -> tuple[bool, float]:
    """Run a plan, by default all passes, on chunk 1."""
    state.planned = planned
    chosen = state.passes if plan is None else plan
    return run_chunk(job, state, chosen, 1, ROWS, pictures, read_geometries(job, state.passes))


def test_a_chunk_runs_all_views_of_a_model_together_and_is_saved() -> None:
    job, state, _ = open_chunk()
    assert show(job, state, paint(0), paint(255)) == (True, 8 + 100), "and 50 s per model to warm up"
    assert [state.runners[name].shown for name in ("two", "one")] == [[(2, ("identity", "hflip"))]] * 2  # type: ignore[attr-defined]
    for name in ("one", "two"):
        assert (job.predictions[name].read(slice(2, 4)) == 0.5).all()
        assert np.isnan(job.predictions[name].read([0, 1, 4, 5])).all()
    assert (job.traits[2:4] == [[0] * 4, [255] * 4]).all()
    assert state.done == {1: FIRST | SPARE}
    facts = {
        "chunk": 1,
        "passes": sorted(FIRST | SPARE),
        "precisions": {"one": "fp32", "two": "fp32"},
        "unreadable": {},
    }
    assert state.store.commits == [(2, 4, ["one", "two", TRAITS_NAME], facts)]  # type: ignore[union-attr]
    assert state.pace.seconds == {"one": 1, "two": 1}, "per image and view, without the warm-up"
    assert state.log.passes == {"one": [4, 4], "two": [4, 4]}
    assert state.log.facts["first_prediction_seconds"] == 54


def test_further_passes_of_a_chunk_join_the_mean_and_are_saved_without_the_traits() -> None:
    job, state, _ = open_chunk()
    first, spare = state.passes[:2], state.passes[2:]
    show(job, state, paint(51), paint(255), plan=first)
    np.testing.assert_allclose(job.predictions["one"].read(slice(2, 4)), [[0.2, 0.2], [1, 1]], atol=1e-3)
    show(job, state, paint(51), paint(255), plan=(*first, spare[0]))
    assert (job.predictions[spare[0].model].read(slice(2, 4)) == 0.5).all()
    assert (job.predictions[spare[1].model].read([3]) == 1).all(), "its second view was not in the plan"
    assert state.done == {1: FIRST | {str(spare[0])}}
    assert [given[2] for given in state.store.commits] == [["one", "two", TRAITS_NAME], [spare[0].model]]  # type: ignore[union-attr]
    assert len(state.runners[spare[1].model].shown) == 1  # type: ignore[attr-defined]


def test_a_chunk_with_late_images_is_predicted_and_not_saved() -> None:
    job, state, _ = open_chunk()
    assert show(job, state, LateError("late"), paint(255))[0] is False
    assert np.isnan(job.predictions["one"].read([2])).all() and (job.predictions["one"].read([3]) == 0.5).all()
    assert state.done == {} and state.store.commits == [] and state.log.unreadable == {}  # type: ignore[union-attr]
    assert show(job, state, LateError("late"), LateError("late")) == (False, 0.0)
    assert state.done == {}


def test_a_chunk_without_a_readable_image_is_done() -> None:
    job, state, _ = open_chunk()
    assert show(job, state, ImageError("torn"), ImageError("empty")) == (True, 0.0)
    assert state.done == {1: FIRST | SPARE} and state.log.unreadable == {"c": "torn", "d": "empty"}
    ((*_, facts),) = state.store.commits  # type: ignore[union-attr]
    assert facts["unreadable"] == {"c": "torn", "d": "empty"}


def test_an_image_that_was_unreadable_stays_without_predictions_and_damage_is_noted() -> None:
    job, state, _ = open_chunk()
    state.log.unreadable["c"] = "too slow"
    state.log.unreadable["f"] = "of another chunk"
    show(job, state, paint(0), paint(255, note="ends early"))
    assert np.isnan(job.predictions["one"].read([2])).all() and not np.isnan(job.predictions["one"].read([3])).any()
    assert state.log.damaged == {"d": "ends early"}
    assert state.store.commits[0][3]["unreadable"] == {"c": "too slow"}  # type: ignore[union-attr, index]


def test_a_model_that_fails_is_excluded_and_the_others_run() -> None:
    job, state, _ = open_chunk()
    state.runners["two"].fault = SessionError("model two fails")  # type: ignore[attr-defined]
    assert show(job, state, paint(0), paint(0))[0] is True
    assert {one.model for one in state.passes} == {"one"}
    assert state.log.degraded == ["model two fails; the run continues without this model"]
    assert state.done == {1: {"one/identity", "one/hflip"}}


def test_a_model_that_the_time_limit_stopped_is_not_excluded() -> None:
    job, state, _ = open_chunk()
    state.runners["one"].fault = SessionError("terminated")  # type: ignore[attr-defined]
    state.stopped = True
    assert show(job, state, paint(0), paint(0))[0] is False
    assert len(state.passes) == 4 and state.log.degraded == []
    assert state.done == {1: {"two/identity", "two/hflip"}}


def test_a_pass_that_does_not_fit_ends_the_chunk() -> None:
    job, state, _ = open_chunk(left=15.9)
    for name, seconds in (("one", 6), ("two", 5)):  # 15 s and 18 s for two images, with the margin
        state.pace.note_pass(name, 1, seconds)
    assert show(job, state, paint(0), paint(0))[0] is False
    assert state.done == {1: {"two/identity"}}


@pytest.mark.parametrize(("left", "has_time"), [(18.1, True), (17.9, False)])
def test_a_trial_of_a_faster_precision_needs_the_time_of_six_batches(left: float, has_time: bool) -> None:
    job, state, _ = open_chunk(left)
    state.pace.note_pass("two", 1, 1)  # 1.5 * 1 s * 6 * 2 images
    show(job, state, paint(0), paint(0), plan=state.passes[:1])
    assert state.runners["two"].settled == [has_time]  # type: ignore[attr-defined]


def test_before_the_first_plan_views_are_measured_one_by_one_and_later_all_together_if_they_fit() -> None:
    _, state, _ = open_chunk(left=12.1)
    state.pace.note_pass("two", 1, 2)
    one, missing = state.passes[0], state.passes
    assert [str(other) for other in join_views(state, one, missing, 2)] == ["two/identity", "two/hflip"]
    assert join_views(state, one, missing, 3) == (one,), "1.5 * 2 s * 2 views * 3 images = 18 s"
    state.planned = False
    assert join_views(state, one, missing, 2) == (one,)


def test_a_model_is_measured_if_time_is_left_to_predict_all_images_without_it() -> None:
    _, state, _ = open_run(100)
    two, one = state.passes[:2]
    assert has_time_to_measure(state, two, (), 10, 1000), "nothing else has the group t"
    assert has_time_to_measure(state, two, (one,), 10, 1000), "nothing else has the group t"
    state.pace.note_pass("two", 1, 2)
    state.pace.note_pass("one", 1, 1)
    state.pace.note_chunk(1, 1)
    # A pass takes up to 2 s * 10 images; each further image takes 2 s for its model and 1 s for other work.
    assert has_time_to_measure(state, one, (two,), 10, 25)  # 1.05 * 3 s * 25 = 78.75
    assert not has_time_to_measure(state, one, (two,), 10, 26)
    spare = next(other for other in state.passes if other.spare)
    assert has_time_to_measure(state, one, (two, spare), 10, 25), "spare views can be dropped"


def open_scaled(**model: object) -> tuple[Job, State]:
    """Return a run whose model `one` has views of two scales; those of scale 125 see another array."""
    views = ["identity", "scale_125", "hflip", "scale_125+hflip"]
    one, two = MANIFEST["models"]  # type: ignore[misc]
    job, state, clock = open_run(1000.0, changes={"models": [{**one, "views": views, **model}, two]})  # type: ignore[dict-item]
    state.runners = {"one": Runner(clock, 2), "two": Runner(clock, 4)}  # type: ignore[dict-item]
    state.planned = True
    return job, state


def paint_scales(job: Job, brightness: tuple[int, ...]) -> Picture:
    """Return an image that has another brightness in each geometry of model `one`."""
    shown = zip(list_geometries(job.manifest.models[0]), brightness, strict=True)
    squares = {geometry: np.full((*geometry.shape, 3), level, np.uint8) for geometry, level in shown}
    return Picture(squares, np.zeros(4, np.float32))


@pytest.mark.parametrize("merge", ["mean", "geometric", "maximum"])
def test_views_of_another_scale_see_their_own_array_in_a_call_of_their_own(merge: str) -> None:
    job, state = open_scaled(merge=merge)
    plan = tuple(one for one in state.passes if one.model == "one")
    dark, bright = paint_scales(job, (51, 102)), paint_scales(job, (204, 255))
    assert show(job, state, dark, bright, plan=plan)[0]
    shown = state.runners["one"].shown  # type: ignore[attr-defined]
    assert shown == [(2, ("identity", "hflip")), (2, ("scale_125", "scale_125+hflip"))]
    # The stand-in gives the mean of a view and its opposite, 0.5, for both scales, so one view at a time says more.
    job, state = open_scaled(merge=merge)
    for view in ("identity", "scale_125", "scale_125+hflip"):
        one = tuple(one for one in state.passes if str(one) == f"one/{view}")
        assert show(job, state, dark, bright, plan=one)[0]
    views = np.array([[[0.2], [0.8]], [[0.4], [1.0]], [[0.6], [1e-5]]])  # (views, images, one)
    wanted = np.repeat(merge_slowly(views, merge), 2, axis=1)
    np.testing.assert_allclose(job.predictions["one"].read(slice(2, 4)), wanted, atol=2e-3)
    assert state.done == {1: {"one/identity", "one/scale_125", "one/scale_125+hflip"}}


@pytest.mark.parametrize("merge", ["mean", "geometric", "maximum"])
def test_tiles_are_merged_by_view_and_the_views_after_them(merge: Merge) -> None:
    """Of two images with three tiles and one tile."""
    job, state = open_scaled(views=["identity", "hflip"], tiles={"aspect": 2, "merge": merge}, merge="maximum")
    (geometry,) = list_geometries(job.manifest.models[0])
    levels = ((0.2, 0.4, 0.6), (0.8,))
    pictures = []
    for own in levels:
        tiles = np.stack([np.full((64, 64, 3), round(255 * one), np.uint8) for one in own])
        pictures.append(Picture({**paint(0).squares, geometry: tiles}, np.zeros(4, np.float32)))
    plan = tuple(one for one in state.passes if one.model == "one")
    assert show(job, state, *pictures, plan=plan)[0]
    for row, own in enumerate(levels):
        merged = [
            merge_slowly(np.array(shown)[:, None, None], merge)[0, 0] for shown in (own, [1 - one for one in own])
        ]
        np.testing.assert_allclose(job.predictions["one"].read([2 + row]), max(merged), atol=2e-3)


def test_a_model_for_features_runs_and_is_kept_like_others() -> None:
    one, two = MANIFEST["models"]  # type: ignore[misc]
    wide = {**one, "name": "wide", "group": "features", "outputs": 6, "views": ["identity"]}  # type: ignore[dict-item]
    job, state, clock = open_run(1000.0, changes={"models": [one, two, wide]})
    assert "wide" not in {each.model for each in state.passes}, "nothing reads it"
    state.passes = (*state.passes, Pass("wide", "identity", 0.0, False, ()))
    state.runners = {name: Runner(clock, size) for name, size in (("one", 2), ("two", 4), ("wide", 6))}  # type: ignore[misc]
    state.planned = True
    assert show(job, state, paint(51), paint(255))[0]
    np.testing.assert_allclose(job.predictions["wide"].read(slice(2, 4)), [[0.2] * 6, [1] * 6], atol=1e-3)
    assert "wide/identity" in state.done[1]


def test_a_run_whose_disk_is_full_continues_without_saving() -> None:
    job, state, _ = open_chunk()
    store = Store(is_full=True)
    state.store = store  # type: ignore[assignment]
    assert show(job, state, paint(0), paint(0))[0] is True
    assert store.removed and state.store is None and state.done == {1: FIRST | SPARE}
    assert state.log.degraded == [
        "the disk is full; the run continues without saving and cannot be resumed if it is killed"
    ]
