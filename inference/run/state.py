"""What a run works on and how far it is."""

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
from inference.ensemble.second_stage import Stage, leave_stackers_out
from inference.manifest.file import MANIFEST_NAME, list_bundle_files
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.manifest.values import Precision
from inference.models.runners import Runner
from inference.run.budget import Clock, Pace
from inference.run.plan import Plan, list_groups, list_passes
from inference.run.store import Store

ROW_BYTES = 128  # of a submission, generously
TRAITS_NAME = "image traits"  # beside the models in the store; no model's name has a space
Predictions = dict[str, NDArray[np.float16]]  # model name -> (images, labels of its group); NaN where unknown


@dataclass(frozen=True)
class Request:
    """One run: where things are and where they go.

    `time_limit` in seconds, None for the manifest's, from `started_at` (seconds since 1970), None for now. `fresh`: do
    not continue an earlier run; `strict`: what would degrade the submission is an error; `precision`: of all models
    that have it within the manifest's limit, None for the faster one (inference/models/precision.py).
    """

    bundle: Path
    images: Path
    sample: Path
    out: Path
    time_limit: float | None = None
    started_at: float | None = None
    predictions: Path | None = None
    fresh: bool = False
    strict: bool = False
    precision: Precision | None = None


@dataclass(frozen=True)
class Job:
    """All that is known before the first model runs, and what the models then say.

    `paths`: the file of each id, None where there is none; `traits`: (images, 4), NaN where unknown.
    """

    request: Request
    manifest: Manifest
    labels: Labels
    ids: Sequence[str]
    paths: Sequence[Path | None]
    predictions: Predictions
    traits: NDArray[np.float32]

    @property
    def prior(self) -> tuple[int, ...]:
        """Label ids of an image without predictions, ascending."""
        return tuple(sorted(self.manifest.decision.prior))

    def list_chunks(self) -> list[range]:
        """The images, chunk by chunk: the unit of work, decoded once, seen by every model, committed."""
        size = self.manifest.runtime.batch_size
        return [range(start, min(start + size, len(self.ids))) for start in range(0, len(self.ids), size)]


@dataclass
class State:
    """How far a run is.

    `passes`: those whose model works; `done`: by chunk, in the order of `list_chunks`, the passes that the predictions
    hold, by name; `planned`: whether a plan was made from measured times; `starved`: whether memory did not suffice for
    something; `precisions`: of the models that an earlier run has used; `stage`: what decides, by the blend alone until
    the stackers are loaded. The store is None once its disk is full.
    """

    log: RunLog
    pace: Pace
    store: Store | None
    passes: Plan
    stage: Stage
    runners: dict[str, Runner] = field(default_factory=dict)
    done: dict[int, set[str]] = field(default_factory=dict)
    planned: bool = False
    starved: bool = False
    precisions: dict[str, Precision] = field(default_factory=dict)


def open_store(job: Job) -> Store:
    """The work folder beside the output; what an earlier run left there is filled into the predictions.

    Raises StoreError where that was another run, and OutputError where the disk is too small for this one.
    """
    out = job.request.out
    # A link's own size: it need not lead anywhere.
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
    needed = store.measure_need() + 2 * ROW_BYTES * len(job.ids)  # a submission is written beside the one before
    if job.request.predictions:
        needed += sum(array.nbytes for array in job.predictions.values())
    free = shutil.disk_usage(store.folder).free
    if free < needed:
        store.close() if store.marks else store.remove()
        raise OutputError(
            f"{out.parent}: {free / 1e6:.1f} MB are free, the run needs {needed / 1e6:.1f} MB for its predictions and "
            "submission; make room, or name another place with --out"
        )
    return store


def open_state(job: Job, store: Store, log: RunLog, started: float) -> State:
    """A run at its start, or where the store says that an earlier one was; `started`: of time.perf_counter()."""
    limit = job.manifest.runtime.choose_time_limit(job.request.time_limit)
    pace = Pace(Clock(started, limit, time.perf_counter), reserve=0.0)
    stage = Stage(leave_stackers_out(job.manifest), job.labels, ())
    state = State(log, pace, store, list_passes(job.manifest), stage)
    for mark in store.marks:
        state.done.setdefault(mark["chunk"], set()).update(mark["passes"])
        log.unreadable |= mark["unreadable"]
        state.precisions |= mark["precisions"]
    if state.done:
        chunks = job.list_chunks()
        images = sum(len(chunks[index]) for index in state.done)
        log.note(f"continues an earlier run: {images} of {len(job.ids)} images are there; --fresh starts over")
    return state


def leave_out(state: State, model: str, error: SessionError) -> None:
    """Go on without a model."""
    state.passes = tuple(one for one in state.passes if one.model != model)
    state.log.note_degraded(f"{error}: this model is left out")


def has_every_group(job: Job, state: State) -> bool:
    """Whether each group still has a model that works."""
    return list_groups(state.passes) >= set(job.labels.groups)
