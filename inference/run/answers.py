"""The answers to the images, decided chunk by chunk as soon as a chunk is predicted.

So the cost of the stackers is measured on real scores and is part of the plan, and little is left to do at the end. If
there is no time for the stackers, the blend decides. A chunk's answers depend on its own images only: an interrupted
run ends with the same ones.
"""

from inference.basics.errors import SessionError
from inference.basics.memory import NO_MEMORY
from inference.basics.run_log import format_seconds
from inference.ensemble.second_stage import choose_answers
from inference.ensemble.stackers import Stage
from inference.run.budget import PASS_MARGIN, RESTORE_MARGIN
from inference.run.state import ChunkAnswers, Job, State
from inference.task.answers import Answer

# Largest shares of the time left that stackers may take: before their cost is known, and for chunks of an earlier run.
FIRST_SHARE, EARLIER_SHARE = 0.1, 0.5


def answer_chunk(job: Job, state: State, index: int, stacked: bool) -> float:
    """Decide a chunk, with the stackers if `stacked`; return the seconds.

    If a stacker fails, the blend decides for all images, as their rules differ, with a note in the log; if the time
    limit stops it, the blend decides for the images from here on. An earlier answer of the stackers stays if there is
    no time for a new one.
    """
    images = job.list_chunks()[index]
    now = state.pace.deadline.now
    started = now()
    alone = state.stage.drop_stackers()
    with state.log.time_stage("decide"):
        stage = state.stage if stacked else alone
        try:
            if stage.stackers and not has_time_to_stack(job, state, images):
                stage = alone
            began = now()
            answers = choose_rows(job, stage, images)
        except (SessionError, MemoryError) as error:
            if not stage.stackers:
                raise
            if state.stopped:
                state.stacked = False
            else:
                reason = str(error) if isinstance(error, SessionError) else f"stackers: {NO_MEMORY} ({error})"
                state.log.note_degraded(f"{reason}; the blend decides instead")
                state.stage = alone
                for other in list(state.answers):
                    answer_chunk(job, state, other, stacked=False)
            stage, began = alone, now()
            answers = choose_rows(job, alone, images)
    earlier = state.answers.get(index)
    if stage.stackers or not (earlier and earlier.stacked and state.stage.stackers):
        state.answers[index] = ChunkAnswers(answers, bool(stage.stackers))
    state.pace.note_choice(bool(stage.stackers), len(images), now() - began)
    return now() - started


def has_time_to_stack(job: Job, state: State, images: range) -> bool:
    """Return whether the stackers may be used for a chunk.

    The first time, measure them on one image, twice, as the first call loads what they need.
    """
    seconds, left = state.pace.choose(True), state.pace.left()
    if seconds:
        return PASS_MARGIN * seconds * len(images) <= left
    for _ in range(2):
        began = state.pace.deadline.now()
        choose_rows(job, state.stage, images[:1])
    seconds = state.pace.deadline.now() - began
    if seconds * len(images) > FIRST_SHARE * left:
        state.pace.note_choice(True, 1, seconds)
        return False
    return True


def choose_rows(job: Job, stage: Stage, images: range) -> list[Answer]:
    """Decide consecutive images."""
    rows = slice(images.start, images.stop)
    return choose_answers(stage, {name: kept.read(rows) for name, kept in job.predictions.items()}, job.traits[rows])


def answer_missing(job: Job, state: State) -> None:
    """Decide all predicted chunks that have no answers: those of an earlier run."""
    chunks = job.list_chunks()
    missing = sorted(state.done.keys() - state.answers.keys())
    left = sum(len(chunks[index]) for index in missing)
    for index in missing:
        has_time = state.pace.choose(True) * left <= EARLIER_SHARE * state.pace.left()
        answer_chunk(job, state, index, state.stacked and has_time)
        left -= len(chunks[index])


def choose_stage(state: State, images: int, cover: float) -> None:
    """Drop the stackers for the next `images` if all groups can be predicted only without them; restore them later.

    `cover`: seconds per image of the fastest models for all groups.
    """
    if not state.stage.stackers:
        return
    allowed = state.pace.allow(images, stacked=True)
    is_enough = allowed >= cover if state.stacked else allowed >= RESTORE_MARGIN * cover
    if is_enough != state.stacked:
        state.stacked = is_enough
        needed = (cover + state.pace.other() + state.pace.choose(True)) * images
        clock = f"{format_seconds(needed)} needed, {format_seconds(max(state.pace.left(), 0))} left"
        change = "restored" if is_enough else "dropped"
        state.log.note(f"stackers {change} for the next {images} images: {clock}")


def stack_rest(job: Job, state: State) -> None:
    """Decide with the stackers where only the blend has decided, as far as the time allows."""
    chunks = job.list_chunks()
    for index, answer in sorted(state.answers.items()):
        can_stack = state.stage.stackers and state.pace.choose(True) and not state.stopped
        if can_stack and not answer.stacked and has_time_to_stack(job, state, chunks[index]):
            answer_chunk(job, state, index, stacked=True)


def list_chosen(job: Job, state: State) -> list[Answer]:
    """Return the answers so far to each image; the prior answer for the others."""
    chosen: list[Answer] = []
    for index, images in enumerate(job.list_chunks()):
        answer = state.answers.get(index)
        chosen += answer.answers if answer else [job.prior] * len(images)
    return chosen
