"""Sweeps over the images, chunk by chunk, with a plan that is revised after each chunk."""

import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from inference.basics.memory import NO_MEMORY, require_free
from inference.basics.run_log import Progress, format_seconds, join_names
from inference.images.geometry import read_draft, read_geometry
from inference.images.read import read_picture
from inference.images.read_ahead import decode_ahead, start_thread
from inference.run.budget import RESTORE_MARGIN
from inference.run.chunk import run_chunk
from inference.run.plan import Plan, add_seconds, choose_passes, choose_remaining, drop_passes, restore_passes
from inference.run.results import improve_submission
from inference.run.state import Job, State, has_every_group


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
    allowed = state.pace.allow(images)
    if kept and not state.planned:
        revised = choose_passes(state.passes, seconds, allowed)
    elif add_seconds(plan, seconds) > allowed:
        revised = drop_passes(plan, seconds, allowed, kept)
    else:
        revised = restore_passes(plan, state.passes, seconds, allowed / RESTORE_MARGIN) if kept else plan
    state.planned = True
    needed, left = (add_seconds(plan, seconds) + state.pace.overhead) * images, max(state.pace.left(), 0)
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
    if not has_every_group(job, state):
        return
    require_free()
    chunks = job.list_chunks()
    timer = threading.Timer(max(state.pace.left(), 0), stop_models, [state])
    timer.daemon, timer.name = True, "time limit"
    start_thread(timer)
    plan, kept = state.passes, frozenset(job.labels.groups)
    todo = [index for index in range(len(chunks)) if index not in state.done]
    try:
        while run_sweep(job, state, plan, todo, kept):
            missing = {one: count_missing(chunks, state, str(one)) for one in state.passes}
            missing = {one: images for one, images in missing.items() if images}
            seconds = {one.model: 0.0 for one in missing} | state.pace.seconds
            plan, kept = choose_remaining(missing, seconds, state.pace.overhead, state.pace.left()), frozenset()
            if not plan or not state.pace.fits(plan[0].model, job.manifest.runtime.batch_size):
                break
            improve_submission(job, state)
            wanted = {str(one) for one in plan}
            todo = [index for index in range(len(chunks)) if not wanted <= state.done.get(index, set())]
            images = sum(len(chunks[index]) for index in todo)
            state.log.note(f"time left: running {join_names(plan)} on {images} images not yet predicted with them")
    finally:
        timer.cancel()


def stop_models(state: State) -> None:
    """Stop the running batch, whose results would come too late."""
    for runner in state.runners.values():
        runner.stop()


def run_sweep(job: Job, state: State, plan: Plan, todo: Sequence[int], kept: frozenset[str]) -> bool:
    """Run the plan over the chunks `todo`; return False if time ran out or a group has no working model left.

    `kept`: groups that must keep a model in the plan; empty in a further sweep.
    """
    chunks, clock = job.list_chunks(), state.pace.clock
    names = {one.model for one in (state.passes if kept else plan)}
    geometries = {model.name: read_geometry(model) for model in job.manifest.models if model.name in names}
    paths = [job.paths[row] for index in todo for row in chunks[index]]
    progress = Progress(len(paths), clock.started, clock.limit)
    left = len(paths)
    began = clock.now()
    runtime = job.manifest.runtime
    draft = read_draft(job.manifest)
    read = partial(read_picture, geometries=set(geometries.values()), max_pixels=runtime.max_pixels, draft=draft)
    with closing(decode_ahead(paths, read, runtime.batch_size, runtime.image_seconds)) as decoded:
        for index, (_, pictures) in zip(todo, decoded, strict=True):
            try:
                in_time, spent = run_chunk(job, state, plan, index, chunks[index], pictures, geometries)
            except MemoryError as error:
                if not kept:  # the chunk was already postponed once
                    raise
                state.log.note(f"{NO_MEMORY}: {len(pictures)} images postponed to the end of the run: {error}")
                state.starved, in_time, spent = True, True, 0.0
            left -= len(pictures)
            state.pace.note_chunk(len(pictures), clock.now() - began - spent)
            if not in_time or not has_every_group(job, state):
                return False
            progress.advance(len(pictures))
            plan = revise_plan(state, plan, left, kept)
            if left and state.pace.is_due():
                improve_submission(job, state)
            began = clock.now()
    return True


def count_missing(chunks: Sequence[range], state: State, name: str) -> int:
    """Count the images that have no predictions of a pass; `name`: MODEL/VIEW."""
    return sum(len(images) for index, images in enumerate(chunks) if name not in state.done.get(index, set()))
