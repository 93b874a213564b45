"""All steps of a run in their order, from a folder of images to submission.csv."""

import sys
import time

import numpy as np
import onnxruntime
import PIL

from inference import __version__
from inference.basics.errors import OutputError, SessionError
from inference.basics.files import make_folder
from inference.basics.memory import NO_MEMORY, require_free
from inference.basics.run_log import RunLog, say
from inference.ensemble.decide import answer_prior
from inference.ensemble.kept_scores import open_scores
from inference.ensemble.stackers import open_stage
from inference.images.traits import TRAITS
from inference.manifest.bundle import open_bundle
from inference.manifest.file import find_file
from inference.manifest.model import Model
from inference.manifest.values import Precision
from inference.models.devices import read_devices
from inference.models.gpus import Gpus
from inference.models.precision import list_allowed
from inference.models.runners import Runner
from inference.models.sessions import ModelSession
from inference.run.plan import list_passes
from inference.run.results import finish, improve_submission, note_missing
from inference.run.state import (
    Job,
    Request,
    State,
    exclude_model,
    find_deadline,
    open_state,
)
from inference.run.sweep import predict_images
from inference.run.work_folder import check_room, open_store
from inference.task.competition import open_competition
from inference.task.submission import check_writable, write_submission

LOW_BATCH = 4  # images, with --low-memory


def run(request: Request) -> bool:
    """Write submission.csv and run_log.json for every image of the sample; return False for a degraded submission.

    Checks all input and writes a valid submission of prior labels before it loads the first model; replaces that by
    better ones during the run. Unreadable images, failing models, a full disk, too little memory and too little time
    degrade the submission and are noted in the log; only other problems raise VitrineError. An interrupted run leaves
    its work folder, and the next run continues from there.
    """
    began = time.monotonic()
    log = RunLog(strict=request.strict)
    with log.time_stage("check"):
        job = read_job(request)
        deadline = find_deadline(job)
        state = open_state(job, open_store(job), log, deadline)
    try:
        with log.time_stage("prior"):
            write_first(job, state)
        earlier = count_images(job, state)
        try:
            with log.time_stage("load"):
                load_stage(job, state)
                load_models(job, state)
            describe_run(job, state)
            with log.time_stage("predict"):
                predict_images(job, state)
        except MemoryError as error:
            state.starved = True
            details = str(error) or "no details given"
            log.note_degraded(f"{NO_MEMORY} ({details}); the run ends early, with the predictions made so far")
        note_missing(job, state)
        finish(job, state)
    except BaseException:
        if state.store:
            state.store.close()
        raise
    if state.store:
        state.store.remove()
    log.seconds["total"] = time.monotonic() - began
    seconds = log.seconds.get("predict", 0.0)
    log.facts |= {
        "precisions": {name: runner.precision for name, runner in state.runners.items()},
        "providers": list_providers(state),
        "images_per_second": round((count_images(job, state) - earlier) / seconds, 2) if seconds else 0.0,
    }
    try:
        log.write(request.out.with_name("run_log.json"))
    except (OutputError, MemoryError) as error:
        log.note_degraded(str(error) or f"run_log.json: {NO_MEMORY} while writing it")
    total, rate = log.seconds["total"], log.facts["images_per_second"]
    counts = f"{len(job.ids)} images, {len(log.unreadable)} unreadable"
    say(f"{request.out}: {counts}, {total:.1f} s, {rate} images/s", sys.stdout)
    return not log.degraded


def read_job(request: Request) -> Job:
    """Read and check all input of a run. Raises VitrineError."""
    check_writable(request.out)
    if request.predictions:
        make_folder(request.predictions)
    manifest, labels, lost = open_bundle(request.bundle, request.attached)
    sample, paths = open_competition(manifest.task, labels, request.competition, request.images, request.sample)
    check_room(request, manifest, labels, sample)
    predictions = open_scores(manifest, labels, len(sample.ids))
    traits = np.full((len(sample.ids), len(TRAITS)), np.nan, np.float32)
    return Job(request, manifest, labels, sample, paths, predictions, traits, answer_prior(manifest, labels), lost)


def write_first(job: Job, state: State) -> None:
    """Write a submission of prior labels, unless an earlier run left a better one."""
    started = time.monotonic()
    if not (state.done and job.request.out.exists()):
        write_submission(job.request.out, job.sample, [job.prior] * len(job.ids), job.labels, job.manifest.task)
    state.pace.note_submission(2 * (time.monotonic() - started))  # the next ones are checked too


def load_stage(job: Job, state: State) -> None:
    """Load the stackers, or use the blend alone if one does not load; submit the predictions of an earlier run."""
    try:
        state.stage = open_stage(job.manifest, job.labels, job.request.bundle)
    except SessionError as error:
        state.log.note_degraded(f"{error}; the blend decides instead")
    if state.done:
        improve_submission(job, state)


def load_models(job: Job, state: State) -> None:
    """Load the models; note in the log those that are lost or fail to load, and GPUs that are not used."""
    gpus = Gpus([device.name for device in read_devices()], state.log)
    models = {model.name: model for model in job.manifest.models}
    for name, reason in job.lost.items():
        exclude_model(state, name, SessionError(reason))
    for name in dict.fromkeys(one.model for one in state.passes):
        if state.pace.left() <= 0:
            break
        require_free()
        try:
            state.runners[name] = open_runner(job, state, models[name], gpus)
        except SessionError as error:
            exclude_model(state, name, error)
    state.passes = tuple(one for one in state.passes if one.model in state.runners)


def open_runner(job: Job, state: State, model: Model, gpus: Gpus) -> Runner:
    """Load a model in the precision of the earlier run, else of the request, else in fp32 until a trial decides.

    Raises SessionError.
    """

    def open_session(gpus: int, precision: Precision) -> ModelSession:
        path = find_file(model.onnx[precision], job.request.bundle, job.request.attached)
        outputs, bounded = job.predictions[model.name].labels, job.manifest.is_bounded(model)
        cores = 1 if job.request.low_memory else 0
        return ModelSession(model.name, path, outputs, gpus, cores, bounded, model.cuts, model.merge)

    allowed, asked = list_allowed(model, job.manifest.runtime.metric_loss), job.request.precision
    if asked and asked not in allowed:
        loss, limit = model.onnx[asked].metric_loss if asked in model.onnx else None, job.manifest.runtime.metric_loss
        reason = "no such file" if loss is None else f"found a loss of {loss:.4f} of the metric; wanted at most {limit}"
        state.log.note(f"model {model.name}: runs in fp32 instead of {asked}: {reason}")
        asked = "fp32"
    chosen = state.precisions.get(model.name, asked)
    if chosen == "fp16" and not gpus.count and not asked:  # an earlier run had a GPU; on a CPU, fp16 is slower
        chosen = "fp32"
    largest = job.manifest.runtime.batch_size
    if job.request.low_memory:
        chosen, largest = chosen or "fp32", min(largest, LOW_BATCH)
    return Runner(open_session, gpus, largest, state.log, chosen or "fp32", {} if chosen else allowed)


def describe_run(job: Job, state: State) -> None:
    """Record and print versions and the numbers of images, models and passes."""
    models = {model.name: list(model.views) for model in job.manifest.models}
    state.log.facts |= {
        "vitrine": __version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "images": len(job.ids),
        "time_limit": state.pace.deadline.limit,
        "models": models,
        "passes_per_image": len(list_passes(job.manifest)),
    }
    work = f"{len(state.runners)} models, {len(state.passes)} passes per image"
    say(f"{len(job.ids)} images, {work} on {', '.join(list_providers(state)) or 'no device'}", sys.stderr)


def list_providers(state: State) -> list[str]:
    """Return the execution providers in use, in alphabetical order; a model may move to another one during the run."""
    return sorted({runner.session.provider for runner in state.runners.values()})


def count_images(job: Job, state: State) -> int:
    """Count the images predicted so far, by this run or an earlier one."""
    chunks = job.list_chunks()
    return sum(len(chunks[index]) for index in state.done)
