"""Input and progress of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from inference.basics.deadline import Deadline
from inference.basics.errors import OptionError, SessionError
from inference.basics.run_log import RunLog
from inference.ensemble.kept_scores import KeptScores
from inference.ensemble.stackers import Stage
from inference.images.read_ahead import CHUNKS_AHEAD
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.manifest.values import Precision
from inference.models.runners import Runner
from inference.run.budget import Pace
from inference.run.plan import Plan, list_passes
from inference.run.store import Store
from inference.task.answers import Answer
from inference.task.sample import Sample

TRAITS_NAME = "image traits"  # name of their array in the store; model names have no space
Predictions = dict[str, KeptScores]  # by model name


@dataclass(frozen=True)
class Request:
    """The options of one run."""

    bundle: Path
    out: Path
    competition: Path | None = None
    """The competition's folder, where `task` of the manifest places the images and the sample."""
    images: Path | None = None
    """Folder of the images; None: that of the task, in `competition`."""
    sample: Path | None = None
    """None: that of the task, in `competition`."""
    time_limit: float | None = None
    """Seconds from `started_at`; None: the manifest's, less its notebook reserve."""
    started_at: float | None = None
    """By time.monotonic(); None: now."""
    predictions: Path | None = None
    """Folder for the scores of each model; None: do not keep them."""
    fresh: bool = False
    """Start over instead of continuing an earlier run."""
    strict: bool = False
    """Raise an error instead of writing a degraded submission."""
    precision: Precision | None = None
    """For all models that have it within the manifest's limit; None: the faster (inference/models/precision.py)."""
    low_memory: bool = False
    """Use one lane, one decoder and small batches: slower, needs the least memory."""
    attached: Mapping[str, Path] = field(default_factory=dict)
    """OWNER/SLUG -> folder of each attached dataset that has files of models."""


@dataclass(frozen=True)
class Job:
    """The checked input of a run, and the arrays that the run fills."""

    request: Request
    manifest: Manifest
    labels: Labels
    sample: Sample
    paths: Sequence[Path | None]
    """File of each id; None if it is missing."""
    predictions: Predictions
    traits: NDArray[np.float32]
    """(images, 4); NaN where unknown."""

    prior: Answer
    """The answer to an image without predictions."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Models whose files in an attached dataset are missing or have changed -> what is wrong."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of the images, in the order of the sample."""
        return self.sample.ids

    def list_chunks(self) -> list[range]:
        """Return the rows of each chunk; a chunk is decoded once, run through all models, and saved."""
        size = self.manifest.runtime.batch_size
        return [range(start, min(start + size, len(self.ids))) for start in range(0, len(self.ids), size)]


@dataclass(frozen=True)
class ChunkAnswers:
    """The answers to the images of a chunk."""

    answers: Sequence[Answer]
    stacked: bool
    """Decided with the stackers, not by the blend alone."""


@dataclass
class State:
    """Progress of a run."""

    log: RunLog
    pace: Pace
    store: Store | None
    """None after its disk was full."""
    passes: Plan
    """Those whose model works."""
    stage: Stage
    """The blend alone until the stackers are loaded, and after one has failed."""
    stacked: bool = True
    """There is time for the stackers of `stage`."""
    answers: dict[int, ChunkAnswers] = field(default_factory=dict)
    """Of the chunks that have been decided."""
    runners: dict[str, Runner] = field(default_factory=dict)
    done: dict[int, set[str]] = field(default_factory=dict)
    """Index in `list_chunks` -> names of the passes that the predictions include."""
    suspects: frozenset[int] = frozenset()
    """Chunks that a killed run worked on: one of their images may have ended it."""
    cover: float = 0.0
    """Seconds per image of the fastest models for all groups; 0 before the first measurement."""
    planned: bool = False
    """There is a plan from measured times."""
    stopped: bool = False
    """The time limit has stopped the models and stackers."""
    starved: bool = False
    """Something ran out of memory."""
    precisions: dict[str, Precision] = field(default_factory=dict)
    """Of the models that an earlier run has used."""


def open_state(job: Job, store: Store, log: RunLog, deadline: Deadline) -> State:
    """Return the state at the start, or of the earlier run in the store."""
    stage = Stage(job.manifest, job.labels, ()).drop_stackers()
    state = State(log, Pace(deadline), store, list_passes(job.manifest), stage)
    for mark in store.marks:
        state.done.setdefault(mark["chunk"], set()).update(mark["passes"])
        log.unreadable |= mark["unreadable"]
        state.precisions |= mark["precisions"]
    if store.resumed:
        reached = max(state.done, default=-1) + 1 + CHUNKS_AHEAD
        state.suspects = frozenset(index for index in range(reached + 1) if index not in state.done)
    for count, what in ((store.damaged, "damaged"), (store.changed, "of images that have changed since")):
        if count:
            log.note(f"{what}: {count} saved chunks, which are predicted again")
    if state.done:
        chunks = job.list_chunks()
        images = sum(len(chunks[index]) for index in state.done)
        log.note(f"continuing an earlier run: {images} of {len(job.ids)} images done; --fresh starts over")
    return state


def exclude_model(state: State, model: str, error: SessionError) -> None:
    """Continue the run without a model that failed."""
    state.passes = tuple(one for one in state.passes if one.model != model)
    state.log.note_degraded(f"{error}; the run continues without this model")


def find_deadline(job: Job) -> Deadline:
    """Return the deadline of the run. Raises OptionError: `started_at` is in the future."""
    runtime, request, now = job.manifest.runtime, job.request, monotonic()
    started = now if request.started_at is None else request.started_at
    if started > now:
        found = f"{started:.0f}, {started - now:.0f} s in the future"
        raise OptionError(f"--started-at: found {found}; wanted a moment of time.monotonic() in the past")
    if request.time_limit is not None:
        return Deadline(started, request.time_limit, now=monotonic)
    limit = runtime.time_limit
    return Deadline(started, limit, runtime.choose_reserve(limit), now=monotonic)
