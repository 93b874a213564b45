"""The order of the steps from a folder of images to submission.csv; no other module knows it."""

import sys
import time

import numpy as np
import onnxruntime
import PIL

from inference import __version__
from inference.basics.errors import OutputError, SessionError
from inference.basics.files import make_folder
from inference.basics.memory import NO_MEMORY, require_free
from inference.basics.run_log import RunLog, join_names
from inference.ensemble.second_stage import choose_labels, open_stage
from inference.images.traits import TRAITS
from inference.manifest.bundle import read_bundle
from inference.manifest.records import Model
from inference.manifest.values import Precision
from inference.models.devices import read_devices
from inference.models.precision import list_allowed
from inference.models.runners import Runner
from inference.models.sessions import CPU, ModelSession, explain_cpu
from inference.models.wheels import load_libraries
from inference.run.budget import estimate_reserve, find_start
from inference.run.results import finish, note_missing, submit
from inference.run.state import Job, Predictions, Request, State, leave_out, open_state, open_store
from inference.run.sweep import predict_images
from inference.task.ids import read_ids
from inference.task.image_places import find_images
from inference.task.submission import check_writable, write_submission

__all__ = ["Request", "read_bundle", "run"]
RESERVE_ROWS = 256  # decided before the start, to know what the end will take


def run(request: Request) -> bool:
    """Write submission.csv and run_log.json for every id of the sample; False where something had to be left out.

    Everything is checked before the first model is loaded, and a submission of the prior's labels is written: whatever
    happens later, a file is there that scores. Better ones take its place along the way. Raises VitrineError; an image
    that cannot be read, a model that fails, a disk that fills, memory that does not suffice and a limit that comes too
    early raise nothing, but are told and cost what they cost. A run that does not come to its end leaves its work
    folder, and the next continues.
    """
    began = time.perf_counter()
    log = RunLog(strict=request.strict)
    with log.time_stage("check"):
        started = find_start(request.started_at, time.perf_counter)
        job = read_job(request)
        state = open_state(job, open_store(job), log, started)
    try:
        with log.time_stage("prior"):
            written = write_first(job, state)
        earlier = count_images(job, state)
        try:
            with log.time_stage("prior"):
                prepare_end(job, state, written)
            with log.time_stage("load"):
                load_models(job, state)
            describe_run(job, state)
            with log.time_stage("predict"):
                predict_images(job, state)
        except MemoryError as error:
            state.starved = True
            log.note_degraded(f"{NO_MEMORY} to go on, so what is there is submitted: {str(error) or 'no more is told'}")
        log.facts["precisions"] = {name: runner.precision for name, runner in state.runners.items()}
        note_missing(job, state)
        finish(job, state)
    except BaseException:
        if state.store:
            state.store.close()
        raise
    if state.store:
        state.store.remove()
    log.seconds["total"] = time.perf_counter() - began
    seconds = log.seconds.get("predict", 0.0)
    log.facts["images_per_second"] = round((count_images(job, state) - earlier) / seconds, 2) if seconds else 0.0
    try:
        log.write(request.out.with_name("run_log.json"))
    except (OutputError, MemoryError) as error:
        log.note_degraded(str(error) or f"run_log.json: {NO_MEMORY} to write it")
    print(
        f"{request.out}: {len(job.ids)} images, {len(log.unreadable)} of them unreadable, "
        f"{log.seconds['total']:.1f} s, {log.facts['images_per_second']} images/s"
    )
    return not log.degraded


def read_job(request: Request) -> Job:
    """All that a run needs, checked; raises VitrineError."""
    check_writable(request.out)
    if request.predictions:
        make_folder(request.predictions)
    manifest, labels = read_bundle(request.bundle)
    ids = read_ids(request.sample)
    predictions: Predictions = {
        model.name: np.full((len(ids), len(labels.columns(model.group))), np.nan, np.float16)
        for model in manifest.models
    }
    traits = np.full((len(ids), len(TRAITS)), np.nan, np.float32)
    return Job(request, manifest, labels, ids, find_images(request.images, ids), predictions, traits)


def write_first(job: Job, state: State) -> float:
    """The first submission, of the prior's labels; an earlier run that is continued has left one."""
    started = time.perf_counter()
    if not (state.done and job.request.out.exists()):
        write_submission(job.request.out, job.ids, [job.prior] * len(job.ids))
    return time.perf_counter() - started


def prepare_end(job: Job, state: State, written: float) -> None:
    """The second stage, a submission of what an earlier run left, and a measure of what the end will take.

    `written`: seconds that writing a submission takes.
    """
    state.stage = open_stage(job.manifest, job.labels, job.request.bundle, state.log)
    if state.done:
        started = time.perf_counter()
        submit(job, state)
        written = time.perf_counter() - started
    rows = min(RESERVE_ROWS, len(job.ids))
    likely = {name: np.full((rows, array.shape[1]), 0.5, np.float16) for name, array in job.predictions.items()}
    started = time.perf_counter()
    state.stage, _ = choose_labels(state.stage, likely, np.zeros((rows, len(TRAITS)), np.float32), state.log)
    decided = time.perf_counter() - started
    reserve = estimate_reserve(decided, rows, len(job.ids), written)
    state.pace.reserve = max(state.pace.reserve, reserve)


def load_models(job: Job, state: State) -> None:
    """A runner for each model that loads; what does not, and a GPU that is not used, is told at once."""
    devices = read_devices()
    gpus = len(devices)
    models = {model.name: model for model in job.manifest.models}
    for name in dict.fromkeys(one.model for one in state.passes):
        if state.pace.left() <= 0:
            break
        require_free()
        try:
            runner = open_runner(job, state, models[name], gpus)
        except SessionError as error:
            leave_out(state, name, error)
            continue
        state.runners[name] = runner
        if gpus and runner.session.provider == CPU:
            gpus = 0  # what one model is refused, the others need not ask for
            names = join_names(device.name for device in devices)
            state.log.note_degraded(f"{names}: not used, runs on the CPU: {explain_cpu(load_libraries())}")
    state.passes = tuple(one for one in state.passes if one.model in state.runners)


def open_runner(job: Job, state: State, model: Model, gpus: int) -> Runner:
    """The runner of a model, in the precision that an earlier run chose, that was asked for, or that a trial will find.

    Raises SessionError.
    """

    def open_session(gpus: int, precision: Precision) -> ModelSession:
        path, outputs = job.request.bundle / model.onnx[precision].file, job.predictions[model.name].shape[1]
        return ModelSession(model.name, path, outputs, gpus)

    allowed, asked = list_allowed(model, job.manifest.runtime.f2_loss), job.request.precision
    if asked and asked not in allowed:
        found = f"it loses {model.onnx[asked].f2_loss:.4f} of F2" if asked in model.onnx else "it has no such file"
        state.log.note(f"model {model.name}: runs in fp32 and not in {asked}: {found}")
        asked = "fp32"
    chosen = state.precisions.get(model.name, asked)
    rivals = {} if chosen else allowed
    return Runner(open_session, gpus, job.manifest.runtime.batch_size, state.log, chosen or "fp32", rivals)


def describe_run(job: Job, state: State) -> None:
    """Put into the log, and tell, what is about to run where."""
    models = {model.name: list(model.views) for model in job.manifest.models}
    state.log.facts |= {
        "vitrine": __version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "providers": sorted({runner.session.provider for runner in state.runners.values()}),
        "images": len(job.ids),
        "time_limit": state.pace.clock.limit,
        "models": models,
        "passes_per_image": sum(map(len, models.values())),
    }
    providers = ", ".join(state.log.facts["providers"]) or "nothing"
    print(
        f"{len(job.ids)} images, {len(state.runners)} models, {len(state.passes)} passes an image on {providers}",
        file=sys.stderr,
    )


def count_images(job: Job, state: State) -> int:
    """How many images were seen so far, by this run or an earlier one."""
    chunks = job.list_chunks()
    return sum(len(chunks[index]) for index in state.done)
