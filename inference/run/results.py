"""Results of a run: submission.csv, the predictions, and the notes on what is missing from them."""

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
    """Note in the log which images get the prior labels, and which passes were dropped for which number of images."""
    total = len(job.ids)
    unread = sum(NO_MEMORY in reason for reason in state.log.unreadable.values())
    if unread:  # other unreadable images would be unreadable on every machine
        state.log.note_degraded(f"{unread} of {total} images get the prior labels: {NO_MEMORY} while reading them")
    chunks, everything = job.list_chunks(), list_passes(job.manifest)
    bare = set(range(len(chunks)))
    for index, done in state.done.items():
        if list_groups(one for one in everything if str(one) in done) >= set(job.labels.groups):
            bare.remove(index)
    has_time = state.pace.left() > 0
    limit = f"not enough time before the time limit of {format_seconds(state.pace.clock.limit)}"
    cause = NO_MEMORY if state.starved and has_time else limit
    if bare:
        images = sum(len(chunks[index]) for index in bare)
        # If time ran out while loading, `state.passes` has only the loaded models.
        gone = [group for group in job.labels.groups if group not in list_groups(state.passes)]
        reason = f"no working model for {join_names(gone)}" if gone and has_time else cause
        state.log.note_degraded(f"{images} of {total} images get the prior labels: {reason}")
    for one in state.passes:
        images = sum(len(chunks[i]) for i, done in state.done.items() if i not in bare and str(one) not in done)
        if images:
            state.log.note_degraded(f"{one} dropped for {images} of {total} images: {cause}")


def submit(job: Job, state: State) -> None:
    """Select labels from the predictions so far; write and check the submission. Raises OutputError."""
    started = time.perf_counter()
    try:
        with state.log.time_stage("decide"):
            state.stage, label_ids = choose_labels(state.stage, job.predictions, job.traits, state.log)
        with state.log.time_stage("write"):
            write_submission(job.request.out, job.ids, label_ids)
            check_submission(job.request.out, job.ids, job.labels)
    except MemoryError as error:
        raise OutputError(f"{job.request.out}: {NO_MEMORY} while writing the submission: {error}") from error
    state.pace.note_submission(time.perf_counter() - started)


def improve_submission(job: Job, state: State) -> None:
    """Replace the submission during the run; keep the previous one if that fails."""
    try:
        submit(job, state)
    except OutputError as error:
        state.log.note(f"{error}; the previous submission is kept for now")


def finish(job: Job, state: State) -> None:
    """Write the final submission, and the predictions if requested; if the disk is full, keep the previous output."""
    try:
        try:
            submit(job, state)
        except OutputError:
            if state.store is None:
                raise
            state.store.remove()  # all images are done; the freed space may be enough
            state.store = None
            submit(job, state)
        if job.request.predictions:
            with state.log.time_stage("write"):
                write_predictions(job.request.predictions, job.ids, job.predictions)
    except (OutputError, MemoryError) as error:
        state.log.note_degraded(f"{str(error) or NO_MEMORY}; the output written so far is kept")


def write_predictions(folder: Path, ids: Sequence[str], predictions: Predictions) -> None:
    """Write MODEL.npy, float16 (images, labels of the model's group), per model, and the image ids to ids.txt."""
    with replace_file(folder / "ids.txt") as temporary:
        temporary.write_text("".join(f"{image_id}\n" for image_id in ids), encoding="utf-8")
    for name, scores in predictions.items():
        with replace_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, scores)
