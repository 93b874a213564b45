"""Input and progress of a run."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import OutputError, SessionError
from inference.basics.files import hash_texts
from inference.basics.run_log import RunLog
from inference.ensemble.stackers import Stage
from inference.manifest.file import MANIFEST_NAME, list_bundle_files
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest, remove_stackers
from inference.manifest.values import Precision
from inference.models.runners import Runner
from inference.run.budget import Clock, Pace
from inference.run.plan import Plan, list_groups, list_passes
from inference.run.store import Store

ROW_BYTES = 128  # upper estimate for a row of a submission
TRAITS_NAME = "image traits"  # name of their array in the store; model names have no space
Predictions = dict[str, NDArray[np.float16]]  # model name -> (images, labels of its group); NaN where unknown


@dataclass(frozen=True)
class Request:
    """The options of one run."""

    bundle: Path
    images: Path
    sample: Path
    out: Path
    time_limit: float | None = None
    """Seconds from `started_at`; None: the manifest's."""
    started_at: float | None = None
    """Seconds since 1970; None: now."""
    predictions: Path | None = None
    """Folder for the probabilities; None: do not keep them."""
    fresh: bool = False
    """Start over instead of continuing an earlier run."""
    strict: bool = False
    """Raise an error instead of writing a degraded submission."""
    precision: Precision | None = None
    """For all models that have it within the manifest's limit; None: the faster (inference/models/precision.py)."""


@dataclass(frozen=True)
class Job:
    """The checked input of a run, and the arrays that the run fills."""

    request: Request
    manifest: Manifest
    labels: Labels
    ids: Sequence[str]
    paths: Sequence[Path | None]
    """File of each id; None if it is missing."""
    predictions: Predictions
    traits: NDArray[np.float32]
    """(images, 4); NaN where unknown."""

    @property
    def prior(self) -> tuple[int, ...]:
        """Return the prior labels: the label ids of an image without predictions, ascending."""
        return tuple(sorted(self.manifest.decision.prior))

    def list_chunks(self) -> list[range]:
        """Return the rows of each chunk; a chunk is decoded once, run through all models, and saved."""
        size = self.manifest.runtime.batch_size
        return [range(start, min(start + size, len(self.ids))) for start in range(0, len(self.ids), size)]


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
    """The blend alone until the stackers are loaded."""
    runners: dict[str, Runner] = field(default_factory=dict)
    done: dict[int, set[str]] = field(default_factory=dict)
    """Index in `list_chunks` -> names of the passes that the predictions include."""
    planned: bool = False
    """There is a plan from measured times."""
    starved: bool = False
    """Something ran out of memory."""
    precisions: dict[str, Precision] = field(default_factory=dict)
    """Of the models that an earlier run has used."""


def open_store(job: Job) -> Store:
    """Open the work folder beside the output; fill the predictions of an earlier run into the arrays.

    Raises StoreError: the folder belongs to another run. Raises OutputError: too little free disk space.
    """
    out = job.request.out
    # Size of a link itself: its target may be missing.
    files = [f"{path.name} {path.lstat().st_size}" if path else "none" for path in job.paths]
    identity = {
        "bundle": hash_texts(entry.sha256 for _, entry in list_bundle_files(job.manifest)),
        "manifest": hash_texts([(job.request.bundle / MANIFEST_NAME).read_text(encoding="utf-8")]),
        "list of images": hash_texts(job.ids),
        "folder of images": hash_texts(files),
        "precision": job.request.precision or "the faster",
    }
    store = Store(
        out.with_name(f"{out.name}.work"), identity, job.predictions | {TRAITS_NAME: job.traits}, job.request.fresh
    )
    needed = store.measure_need() + 2 * ROW_BYTES * len(job.ids)  # a new submission is written beside the old one
    if job.request.predictions:
        needed += sum(array.nbytes for array in job.predictions.values())
    free = shutil.disk_usage(store.folder).free
    if free < needed:
        store.close() if store.marks else store.remove()
        raise OutputError(
            f"{out.parent}: found {free / 1e6:.1f} MB of free space; wanted {needed / 1e6:.1f} MB for predictions and "
            "submission; free some space or choose another folder with --out"
        )
    return store


def open_state(job: Job, store: Store, log: RunLog, started: float) -> State:
    """Return the state at the start, or of the earlier run in the store; `started`: of time.perf_counter()."""
    limit = job.manifest.runtime.choose_time_limit(job.request.time_limit)
    pace = Pace(Clock(started, limit, time.perf_counter), reserve=0.0)
    stage = Stage(remove_stackers(job.manifest), job.labels, ())
    state = State(log, pace, store, list_passes(job.manifest), stage)
    for mark in store.marks:
        state.done.setdefault(mark["chunk"], set()).update(mark["passes"])
        log.unreadable |= mark["unreadable"]
        state.precisions |= mark["precisions"]
    if state.done:
        chunks = job.list_chunks()
        images = sum(len(chunks[index]) for index in state.done)
        log.note(f"continuing an earlier run: {images} of {len(job.ids)} images done; --fresh starts over")
    return state


def exclude_model(state: State, model: str, error: SessionError) -> None:
    """Continue the run without a model that failed."""
    state.passes = tuple(one for one in state.passes if one.model != model)
    state.log.note_degraded(f"{error}; the run continues without this model")


def has_every_group(job: Job, state: State) -> bool:
    """Return whether each group still has a model that works."""
    return list_groups(state.passes) >= set(job.labels.groups)
