"""One chunk of images: run the passes that it still needs, and save their predictions."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import ImageError, LateError, OutputError, SessionError
from inference.ensemble.kept_scores import KeptScores
from inference.images.geometry import Geometry
from inference.images.read import Picture
from inference.images.tiles import merge_tiles
from inference.manifest.values import Merge, View
from inference.models.precision import TRIAL_BATCHES
from inference.models.views import merge_views
from inference.run.budget import PLAN_MARGIN
from inference.run.plan import Pass, Plan, add_seconds, list_groups
from inference.run.state import TRAITS_NAME, Job, State, exclude_model


def run_chunk(
    job: Job,
    state: State,
    plan: Plan,
    index: int,
    images: range,
    pictures: Sequence[Picture | ImageError],
    geometries: Mapping[tuple[str, View], Geometry],
) -> tuple[bool, float]:
    """Run and save the missing passes of the plan; return whether there was enough time, and the models' seconds.

    `images`: the chunk's rows of the predictions; `geometries`: by model and view. Models that fail are excluded. If
    not all images were read in time, the others are predicted and not saved, so that a later run reads all.
    """
    rows, readable = take_readable(job, state, images, pictures)
    is_whole = not any(isinstance(found, LateError) for found in pictures)
    done = state.done.get(index, set())
    if not rows:
        if is_whole:
            commit_chunk(job, state, index, images, {str(one) for one in state.passes} - done)
        return is_whole, 0.0
    batches = {geometry: join_squares(readable, geometry) for geometry in set(geometries.values())}
    job.traits[rows] = [found.traits for found in readable]
    shown: dict[str, list[tuple[int, NDArray[np.float32]]]] = {}
    ran: list[Pass] = []
    in_time, spent, now = is_whole, 0.0, state.pace.deadline.now
    for one in plan:
        if str(one) in done or one in ran or one not in state.passes:
            continue
        if not state.pace.fits(one.model, len(rows)):
            in_time = False
            break
        if not state.planned and not has_time_to_measure(state, one, ran, len(rows), len(job.ids) - images.stop):
            continue
        geometry = geometries[one.model, one.view]
        began = now()
        has_time = state.pace.fits(one.model, TRIAL_BATCHES * len(rows))
        state.runners[one.model].settle(batches[geometry], has_time)
        # With tiles, one view per call, as tiles are merged per view; without a plan too, to measure in small steps.
        missing = [other for other in plan if str(other) not in done and other not in ran]
        alike = [other for other in missing if geometries[other.model, other.view] == geometry]
        together: Plan = join_views(state, one, alike, len(rows)) if not geometry.tiles else (one,)
        try:
            probabilities, seconds = show_views(state, together, geometry, batches[geometry], readable)
        except SessionError as error:
            if state.stopped:
                in_time = False
                break
            exclude_model(state, one.model, error)
            continue
        spent += now() - began
        note_passes(state, together, len(rows), seconds)
        shown.setdefault(one.model, []).append((len(together), probabilities))
        ran += together
    keep_scores(job, rows, shown, done)
    if ran and is_whole:
        commit_chunk(job, state, index, images, set(map(str, ran)))
    return in_time, spent


def show_views(
    state: State, together: Plan, geometry: Geometry, batch: NDArray[np.uint8], pictures: Sequence[Picture]
) -> tuple[NDArray[np.float32], float]:
    """Run views of one model and one geometry; return their merged scores, (images, labels), and the seconds.

    The seconds do not include the time to prepare the device for a new size of the batch. Raises SessionError.
    """
    runner, views = state.runners[together[0].model], [one.view for one in together]
    runner.warm_up(batch, views)
    began = state.pace.deadline.now()
    probabilities = runner.predict(batch, views)
    if geometry.tiles:
        counts = [len(found.squares[geometry]) for found in pictures]
        probabilities = merge_tiles(probabilities, counts, geometry.tiles.merge)
    return probabilities, state.pace.deadline.now() - began


def take_readable(
    job: Job, state: State, images: range, pictures: Sequence[Picture | ImageError]
) -> tuple[list[int], list[Picture]]:
    """Return the rows and images that were read; note in the log those that cannot be read."""
    rows, readable = [], []
    for row, found in zip(images, pictures, strict=True):
        if isinstance(found, LateError):
            continue
        if isinstance(found, ImageError):
            state.log.note_unreadable(job.ids[row], str(found))
        elif job.ids[row] not in state.log.unreadable:
            rows.append(row)
            readable.append(found)
            if found.note:
                state.log.damaged[job.ids[row]] = found.note
    return rows, readable


def join_views(state: State, one: Pass, missing: Sequence[Pass], rows: int) -> Plan:
    """Return all missing passes of a model, to run in one call, if there is a plan and they fit; else only `one`.

    `missing`: those whose geometry is that of `one`.
    """
    own = tuple(other for other in missing if other.model == one.model)
    return own if state.planned and state.pace.fits(one.model, len(own) * rows) else (one,)


def note_passes(state: State, together: Plan, rows: int, seconds: float) -> None:
    """Record the seconds that passes of one model took for `rows` images.

    Ignores the number of tiles: a chunk with many long images takes longer than estimated.
    """
    for one in together:
        state.pace.note_pass(one.model, rows, seconds / len(together))
        state.log.note_passes(one.model, rows, seconds / len(together))
    state.log.facts.setdefault("first_prediction_seconds", round(state.pace.deadline.spent(), 3))


def join_squares(pictures: Sequence[Picture], geometry: Geometry) -> NDArray[np.uint8]:
    """Join the arrays of all images, or all their tiles, into one batch (arrays, height, width, 3)."""
    squares = [picture.squares[geometry] for picture in pictures]
    return np.concatenate(squares) if geometry.tiles else np.stack(squares)


def has_time_to_measure(state: State, one: Pass, ran: Collection[Pass], rows: int, images: int) -> bool:
    """Return whether a pass of the first chunk leaves time to run the models that ran, with one view, on `images`."""
    if not list_groups(ran) >= set(one.groups):
        return True
    seconds = state.pace.seconds
    cover = add_seconds((other for other in ran if not other.spare), seconds) + state.pace.other()
    return state.pace.left() - max(seconds.values()) * rows >= PLAN_MARGIN * cover * images


def keep_scores(
    job: Job, rows: list[int], shown: Mapping[str, Sequence[tuple[int, NDArray[np.float32]]]], done: Collection[str]
) -> None:
    """Merge the scores of passes into the predictions of some images; `shown`: by model, the `views` of `add_views`.

    `done`: names of the passes that the predictions include.
    """
    merges = {model.name: model.merge for model in job.manifest.models}
    for name, views in shown.items():
        before = sum(other.rpartition("/")[0] == name for other in done)
        add_views(job.predictions[name], rows, views, before, merges[name])


def add_views(
    kept: KeptScores,
    rows: list[int],
    views: Sequence[tuple[int, NDArray[np.float32]]],
    before: int,
    merge: Merge,
) -> None:
    """Add further views to the scores of some images, in which `before` views are merged.

    `views`: (number of views, their merged scores, (images, labels)).
    """
    earlier = [(before, kept.read(rows).astype(np.float32))] if before else []
    kept.write(rows, merge_views([*views, *earlier], merge))


def commit_chunk(job: Job, state: State, index: int, images: range, ran: set[str]) -> None:
    """Mark the passes as done and save their predictions; if the disk is full, the run continues without saving."""
    is_new = index not in state.done
    state.done.setdefault(index, set()).update(ran)
    if state.store is None:
        return
    arrays = sorted({name.rpartition("/")[0] for name in ran}) + [TRAITS_NAME] * is_new
    own = {job.ids[row]: state.log.unreadable[job.ids[row]] for row in images if job.ids[row] in state.log.unreadable}
    precisions = {name: runner.precision for name, runner in state.runners.items() if runner.is_settled}
    facts = {"chunk": index, "passes": sorted(ran), "precisions": precisions, "unreadable": own}
    try:
        state.store.commit(images.start, images.stop, arrays, facts)
    except OutputError as error:
        state.store.remove()  # frees space for the submission
        state.store = None
        state.log.note_degraded(f"{error}; the run continues without saving and cannot be resumed if it is killed")
