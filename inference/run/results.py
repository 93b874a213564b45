"""Results of a run: submission.csv, the predictions, and the notes on what is missing from them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import OutputError
from inference.basics.files import replace_file
from inference.basics.memory import NO_MEMORY
from inference.basics.run_log import format_seconds, join_names
from inference.ensemble.stackers import list_used_stackers
from inference.manifest.model import list_members
from inference.run.answers import answer_missing, list_chosen
from inference.run.plan import list_groups
from inference.run.state import Job, Predictions, State
from inference.task.submission import check_submission, write_submission

# A few broken images are usual; more unreadable ones than this share point to a wrong folder or a failed download.
UNREADABLE_SHARE = 0.1


def note_missing(job: Job, state: State) -> None:
    """Note in the log which images get prior labels, and what was dropped for which number of images."""
    note_unreadable(job, state)
    total = len(job.ids)
    unread = np.array([image_id in state.log.unreadable for image_id in job.ids])
    known = {group: find_predicted(job, group) for group in job.labels.groups}
    bare = ~unread & ~np.any([*known.values()], axis=0)
    has_time = state.pace.left() > 0 and not state.stopped
    cause = f"not enough time before the time limit of {format_seconds(state.pace.deadline.limit)}"
    if state.starved and has_time:
        cause = NO_MEMORY
    # If time ran out while loading, `state.passes` has only the loaded models.
    gone = [group for group in job.labels.groups if group not in list_groups(state.passes)] if has_time else []
    if bare.any():
        reason = f"no working model for {join_names(gone)}" if gone else cause
        state.log.note_degraded(f"{bare.sum()} of {total} images get the prior labels: {reason}")
    for group, predicted in known.items():
        lost = ~unread & ~bare & ~predicted
        if lost.any():
            reason = "no working model for it" if group in gone else cause
            state.log.note_degraded(f"{lost.sum()} of {total} images get the prior labels of {group}: {reason}")
    chunks = job.list_chunks()
    for one in state.passes:
        images = sum(len(chunks[index]) for index, done in state.done.items() if done and str(one) not in done)
        if images:
            state.log.note_degraded(f"{one} dropped for {images} of {total} images: {cause}")
    note_features(job, state, ~unread & ~bare)
    images = sum(len(answer.answers) for answer in state.answers.values() if not answer.stacked)
    if state.stage.stackers and images:
        state.log.note_degraded(f"stackers dropped for {images} of {total} images: {cause}")


def note_features(job: Job, state: State, predicted: NDArray[np.bool_]) -> None:
    """Note in the log how many of the `predicted` images, (images,), lack outputs that a stacker reads."""
    members, used = list_members(job.manifest.models), list_used_stackers(state.stage.manifest)
    for name in dict.fromkeys(name for stacker in used for name in stacker.features):
        known = np.any([job.predictions[model.name].find_known() for model in members[name]], axis=0)
        if (predicted & ~known).any():
            state.log.note_degraded(
                f"the blend decides for {(predicted & ~known).sum()} of {len(known)} images: they lack the features "
                f"of {name}, which the stackers read"
            )


def note_unreadable(job: Job, state: State) -> None:
    """Note in the log unreadable images that degrade the submission: out of memory, or too many."""
    total, unreadable = len(job.ids), state.log.unreadable
    starved = sum(NO_MEMORY in reason for reason in unreadable.values())
    if starved:  # other unreadable images would be unreadable on every machine
        state.log.note_degraded(f"{starved} of {total} images get the prior labels: {NO_MEMORY} while reading them")
    elif len(unreadable) > UNREADABLE_SHARE * total:
        image_id, reason = next(iter(unreadable.items()))
        found = f"{len(unreadable)} of {total} images get the prior labels: they cannot be read"
        state.log.note_degraded(f"{found}; check the folder of images; the first is {image_id}: {reason}")


def find_predicted(job: Job, group: str) -> NDArray[np.bool_]:
    """Return which images have a prediction in the blend of a group, (images,)."""
    predicted = np.zeros(len(job.ids), np.bool_)
    for name, weight in job.manifest.ensemble.weights[group].items():
        if weight > 0:
            predicted |= job.predictions[name].find_known()
    return predicted


def submit(job: Job, state: State) -> None:
    """Write and check the submission of the predictions so far. Raises OutputError."""
    try:
        answer_missing(job, state)
        now = state.pace.deadline.now
        started = now()
        with state.log.time_stage("write"):
            write_submission(job.request.out, job.sample, list_chosen(job, state), job.labels, job.manifest.task)
            check_submission(job.request.out, job.sample, job.labels, job.manifest.task)
        state.pace.note_submission(now() - started)
    except MemoryError as error:
        raise OutputError(f"{job.request.out}: {NO_MEMORY} while writing the submission: {error}") from error


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
                write_predictions(job.request.predictions, job.ids, job.predictions, state)
    except (OutputError, MemoryError) as error:
        state.log.note_degraded(f"{str(error) or NO_MEMORY}; the output written so far is kept")


def write_predictions(folder: Path, ids: Sequence[str], predictions: Predictions, state: State) -> None:
    """Write MODEL.npy, the `array` of its scores, per model, and the image ids to ids.txt.

    After the deadline, the remaining models are skipped. inference/ensemble/kept_scores.py reads the files.
    """
    with replace_file(folder / "ids.txt") as temporary:
        temporary.write_text("".join(f"{image_id}\n" for image_id in ids), encoding="utf-8")
    for name, kept in predictions.items():
        if state.pace.deadline.left() <= 0:
            state.log.note(f"{folder}: no time left to write the predictions of {name} and later models")
            return
        with replace_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, kept.array)
