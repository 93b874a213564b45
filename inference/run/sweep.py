"""Sweeps over the images, chunk by chunk, with a plan that is revised after each chunk."""

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import groupby

from inference.basics.errors import ImageError
from inference.basics.memory import NO_MEMORY, require_free
from inference.basics.run_log import Progress, format_seconds, join_names
from inference.images.geometry import Geometry, read_draft, read_geometry
from inference.images.read import Picture, read_picture
from inference.images.read_ahead import decode_ahead, start_thread
from inference.manifest.values import View
from inference.run.answers import answer_chunk, choose_stage, stack_rest
from inference.run.budget import PASS_MARGIN, RESTORE_MARGIN
from inference.run.chunk import run_chunk
from inference.run.plan import (
    Plan,
    add_seconds,
    choose_passes,
    choose_remaining,
    drop_passes,
    find_fastest,
    list_groups,
    restore_passes,
)
from inference.run.results import improve_submission
from inference.run.state import Job, State

LONGEST_WAIT = 1.0  # seconds
FIRST_SHARE = 0.2  # of the time limit, kept to predict the first images before the speed of a model is known


def revise_plan(state: State, plan: Plan, images: int, kept: frozenset[str]) -> Plan:
    """Return the plan for the remaining `images`; note in the log what was dropped or restored, and why.

    `kept`: groups that must keep a model; empty in a further sweep, which restores nothing.
    """
    plan = tuple(one for one in plan if one in state.passes)
    measured = state.pace.seconds
    if not images or not measured:
        return plan
    # Models that the first chunk had no time to measure count as slow as the slowest.
    seconds = dict.fromkeys((one.model for one in state.passes), max(measured.values())) | measured
    if kept:
        choose_stage(state, images, add_seconds(find_fastest(state.passes, seconds), seconds))
    allowed = state.pace.allow(images, state.stacked)
    if kept and not state.planned:
        revised = choose_passes(state.passes, seconds, allowed)
    elif add_seconds(plan, seconds) > allowed:
        revised = drop_passes(plan, seconds, allowed, kept)
    else:
        revised = restore_passes(plan, state.passes, seconds, allowed / RESTORE_MARGIN) if kept else plan
    state.planned = True
    other = state.pace.other() + state.pace.choose(state.stacked)
    needed, left = (add_seconds(plan, seconds) + other) * images, max(state.pace.left(), 0)
    clock = f"{format_seconds(needed)} needed, {format_seconds(left)} left"
    for passes, change in ((set(plan) - set(revised), "dropped"), (set(revised) - set(plan), "restored")):
        if passes:
            names = join_names(one for one in state.passes if one in passes)
            state.log.note(f"{names} {change} for the next {images} images: {clock}")
    return revised


def predict_images(job: Job, state: State) -> None:
    """Fill in the predictions within the time limit.

    The first sweep runs the passes that fit over all images; further sweeps run dropped ones, the most valuable first.
    """
    if not state.passes:
        return
    require_free()
    chunks = job.list_chunks()
    plan, kept = state.passes, list_groups(state.passes)
    todo = order_chunks(job, state)
    with stop_in_time(state):
        while run_sweep(job, state, plan, todo, kept):
            missing = {one: count_missing(chunks, state, str(one)) for one in state.passes}
            missing = {one: images for one, images in missing.items() if images}
            seconds = {one.model: 0.0 for one in missing} | state.pace.seconds
            other = state.pace.other() + state.pace.choose(state.stacked)
            plan, kept = choose_remaining(missing, seconds, other, state.pace.left()), frozenset()
            if not plan or not state.pace.fits(plan[0].model, job.manifest.runtime.batch_size):
                break
            improve_submission(job, state)
            wanted = {str(one) for one in plan}
            todo = [index for index in range(len(chunks)) if not wanted <= state.done.get(index, set())]
            images = sum(len(chunks[index]) for index in todo)
            state.log.note(f"time left: running {join_names(plan)} on {images} images not yet predicted with them")
        stack_rest(job, state)


def order_chunks(job: Job, state: State) -> list[int]:
    """Return the chunks without predictions, the suspects last."""
    todo = [index for index in range(len(job.list_chunks())) if index not in state.done]
    return sorted(todo, key=lambda index: (index in state.suspects, index))


@contextmanager
def stop_in_time(state: State) -> Iterator[None]:
    """Stop the running model or stacker at the time limit, if the context has not ended before."""
    ended = threading.Event()

    def watch() -> None:
        # The reserve may change, so the time left is asked for again and again.
        while (left := state.pace.left()) > 0:
            if ended.wait(min(left, LONGEST_WAIT)):
                return
        state.stopped = True
        for runner in state.runners.values():
            runner.stop()
        for stacker in state.stage.stackers:
            stacker.stop()

    start_thread(threading.Thread(target=watch, name="time limit", daemon=True))
    try:
        yield
    finally:
        ended.set()


def run_sweep(job: Job, state: State, plan: Plan, todo: Sequence[int], kept: frozenset[str]) -> bool:
    """Run the plan over the chunks `todo`; return False if time ran out or no model works any more.

    `kept`: groups that must keep a model in the plan; empty in a further sweep.
    """
    chunks, now = job.list_chunks(), state.pace.deadline.now
    left = sum(len(chunks[index]) for index in todo)
    progress = Progress(left, state.pace.deadline)
    began = now()
    geometries = read_geometries(job, plan)
    with closing(read_chunks(job, state, todo, geometries)) as decoded:
        for index, (_, pictures) in zip(todo, decoded, strict=True):
            in_time, spent = True, 0.0
            try:
                in_time, spent = run_chunk(job, state, plan, index, chunks[index], pictures, geometries)
            except MemoryError as error:
                if not kept:  # the chunk was already postponed once
                    raise
                state.log.note(f"{NO_MEMORY}: {len(pictures)} images postponed to the end of the run: {error}")
                state.starved = True
            with suppress(MemoryError):  # the submission needs the labels, and tries again
                spent += answer_chunk(job, state, index, state.stacked and in_time)
            state.cover = measure_cover(state)
            left -= len(pictures)
            state.pace.note_chunk(len(pictures), now() - began - spent)
            if not in_time or not state.passes:
                return False
            progress.advance(len(pictures))
            plan = revise_plan(state, plan, left, kept & list_groups(state.passes))
            if left and state.pace.is_due():
                improve_submission(job, state)
            began = now()
    return True


def read_geometries(job: Job, plan: Plan) -> dict[tuple[str, View], Geometry]:
    """Return the geometry of each pass of the plan, by model and view."""
    models = {model.name: model for model in job.manifest.models}
    return {(one.model, one.view): read_geometry(models[one.model], one.view) for one in plan}


def read_chunks(
    job: Job, state: State, todo: Sequence[int], geometries: Mapping[tuple[str, View], Geometry]
) -> Generator[tuple[int, list[Picture | ImageError]], None, None]:
    """Read the images of the chunks ahead, as long as there is time to predict them.

    A suspect is not read before the chunks that come before all suspects are done, as it may end the process.
    """
    chunks, runtime = job.list_chunks(), job.manifest.runtime
    own = set(geometries.values())
    read = partial(read_picture, geometries=own, max_pixels=runtime.max_pixels, draft=read_draft(job.manifest))
    find_left = partial(find_time_to_read, job, state)
    for _, part in groupby(todo, key=state.suspects.__contains__):
        paths = [job.paths[row] for index in part for row in chunks[index]]
        with closing(decode_ahead(paths, read, runtime.batch_size, runtime.image_seconds, find_left)) as decoded:
            yield from decoded


def find_time_to_read(job: Job, state: State) -> float:
    """Return the seconds for which images may still be read: then the fastest models predict what has been read.

    The decoders' threads ask this, so it reads only numbers, which the main thread sets.
    """
    if not state.cover:
        return state.pace.left() - FIRST_SHARE * state.pace.deadline.limit
    return state.pace.left() - PASS_MARGIN * state.cover * job.manifest.runtime.batch_size


def measure_cover(state: State) -> float:
    """Return the seconds per image of the fastest models for all groups, of those measured so far; 0 without any."""
    seconds = state.pace.seconds
    known = tuple(one for one in state.passes if one.model in seconds)
    return add_seconds(find_fastest(known, seconds), seconds) if known else 0.0


def count_missing(chunks: Sequence[range], state: State, name: str) -> int:
    """Count the images that have no predictions of a pass; `name`: MODEL/VIEW."""
    return sum(len(images) for index, images in enumerate(chunks) if name not in state.done.get(index, set()))
