"""TODO."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.basics.errors import OutputError
from inference.basics.files import replace_file
from inference.basics.memory import NO_MEMORY
from inference.basics.run_log import format_seconds, join_names
from inference.ensemble.second_stage import choose_labels
from inference.run.plan import list_groups, list_passes
from inference.run.state import Job, Predictions, State
from inference.task.submission import check_submission, write_submission


def note_missing(job: Job, state: State) -> None:
    """Tell what the submission lacks: images without predictions, and passes that not every image has."""
    unread = sum(NO_MEMORY in reason for reason in state.log.unreadable.values())
    if unread:  # a file's own fault costs nothing that another machine would have
        state.log.note_degraded(f"{unread} of {len(job.ids)} images keep the prior's labels: {NO_MEMORY} to read them")
    chunks, everything = job.list_chunks(), list_passes(job.manifest)
    bare = set(range(len(chunks)))
    for index, done in state.done.items():
        if list_groups(one for one in everything if str(one) in done) >= set(job.labels.groups):
            bare.remove(index)
    limit = f"before the limit of {format_seconds(state.pace.clock.limit)}"
    short = state.starved and state.pace.left() > 0
    missed, unseen = (NO_MEMORY, NO_MEMORY) if short else (f"no time {limit}", f"no time left {limit}")
    if bare:
        images = sum(len(chunks[index]) for index in bare)
        # A model that was not loaded for want of time is not in the passes either.
        gone = [group for group in job.labels.groups if group not in list_groups(state.passes)]
        reason = f"no model of {join_names(gone)} works" if gone and state.pace.left() > 0 else unseen
        state.log.note_degraded(f"{images} of {len(job.ids)} images keep the prior's labels: {reason}")
    for one in state.passes:
        images = sum(len(chunks[i]) for i, done in state.done.items() if i not in bare and str(one) not in done)
        if images:
            state.log.note_degraded(f"{one} is left out on {images} of {len(job.ids)} images: {missed}")


def submit(job: Job, state: State) -> None:
    """Decide, write and check a submission of what is there, in place of the one before; raises OutputError."""
    started = time.perf_counter()
    try:
        with state.log.time_stage("decide"):
            state.stage, label_ids = choose_labels(state.stage, job.predictions, job.traits, state.log)
        with state.log.time_stage("write"):
            write_submission(job.request.out, job.ids, label_ids)
            check_submission(job.request.out, job.ids, job.labels)
    except MemoryError as error:
        raise OutputError(f"{job.request.out}: {NO_MEMORY} to decide and write it: {error}") from error
    state.pace.note_submission(time.perf_counter() - started)


def improve_submission(job: Job, state: State) -> None:
    """A better submission along the way; where it cannot be written, the one before stays."""
    try:
        submit(job, state)
    except OutputError as error:
        state.log.note(f"{error}: the submission before it stays for now")


def finish(job: Job, state: State) -> None:
    """The last submission, and the predictions where they are wanted; a full disk keeps the submission before it."""
    try:
        try:
            submit(job, state)
        except OutputError:
            if state.store is None:
                raise
            state.store.remove()  # the work is done: the room that it takes may be just what is missing
            state.store = None
            submit(job, state)
        if job.request.predictions:
            with state.log.time_stage("write"):
                write_predictions(job.request.predictions, job.ids, job.predictions)
    except (OutputError, MemoryError) as error:
        state.log.note_degraded(f"{str(error) or NO_MEMORY}: what was written before stays")


def write_predictions(folder: Path, ids: Sequence[str], predictions: Predictions) -> None:
    """MODEL.npy, float16 (images, labels of the model's group), for each model, and their ids in ids.txt."""
    with replace_file(folder / "ids.txt") as temporary:
        temporary.write_text("".join(f"{image_id}\n" for image_id in ids), encoding="utf-8")
    for name, scores in predictions.items():
        with replace_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, scores)
