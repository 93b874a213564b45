"""The order of the steps from a folder of images to submission.csv; no other module knows it."""

import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import PIL

from inference import __version__
from inference.budget import estimate_reserve, find_start
from inference.chunks import has_every_group, join_names, leave_out, revise_plan, run_chunk
from inference.decode import decode_ahead, start_thread
from inference.devices import read_devices
from inference.errors import ManifestError, OutputError, SessionError
from inference.files import make_folder, replace_file
from inference.images import NO_MEMORY, find_images, read_draft, read_geometry, read_picture
from inference.job import Job, Predictions, Request, State, open_state, open_store
from inference.labels import Labels, read_labels
from inference.manifest import (
    MANIFEST_NAME,
    Manifest,
    Model,
    check_coverage,
    list_bundle_files,
    read_manifest,
    verify_files,
)
from inference.memory import require_free
from inference.plan import Plan, choose_returns, list_groups, list_passes
from inference.precision import list_allowed
from inference.rules import Precision
from inference.run_log import Progress, RunLog, format_seconds
from inference.runners import Runner
from inference.second_stage import choose_labels, open_stage
from inference.sessions import CPU, ModelSession, explain_cpu
from inference.submission import check_submission, check_writable, read_ids, write_submission
from inference.traits import TRAITS
from inference.wheels import load_libraries

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


def read_bundle(folder: Path) -> tuple[Manifest, Labels]:
    """The manifest and the labels of a bundle whose files are all there and all as declared.

    Raises ManifestError naming the key, or LabelsError naming the label.
    """
    manifest = read_manifest(folder / MANIFEST_NAME)
    try:
        check_coverage(manifest)
        for index, model in enumerate(manifest.models):
            if "fp32" not in model.onnx:
                raise ManifestError(f"`models[{index}].onnx.fp32`: missing; export {model.name}, then pack")
    except ManifestError as error:
        raise ManifestError(f"{MANIFEST_NAME}: {error}") from error
    verify_files(list_bundle_files(manifest), folder)
    labels = read_labels(folder / manifest.labels.file, manifest.labels.groups)
    strange = set(manifest.decision.prior) - set(labels.ids)
    if strange:
        raise ManifestError(f"{MANIFEST_NAME}: `decision.prior`: label id {min(strange)} is not in labels.csv")
    return manifest, labels


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


def predict_images(job: Job, state: State) -> None:
    """Fill in the predictions, as many as there is time for.

    All passes that fit over all images; then, while there is time, what was left out, the most valuable first.
    """
    if not has_every_group(job, state):
        return
    require_free()
    chunks = job.list_chunks()
    alarm = threading.Timer(max(state.pace.left(), 0), stop_models, [state])
    alarm.daemon, alarm.name = True, "alarm of the limit"
    start_thread(alarm)
    plan, kept = state.passes, frozenset(job.labels.groups)
    todo = [index for index in range(len(chunks)) if index not in state.done]
    try:
        while run_sweep(job, state, plan, todo, kept):
            lacking = {one: count_lacking(chunks, state, str(one)) for one in state.passes}
            lacking = {one: images for one, images in lacking.items() if images}
            seconds = {one.model: 0.0 for one in lacking} | state.pace.seconds
            plan, kept = choose_returns(lacking, seconds, state.pace.overhead, state.pace.left()), frozenset()
            if not plan or not state.pace.fits(plan[0].model, job.manifest.runtime.batch_size):
                break
            improve_submission(job, state)
            wanted = {str(one) for one in plan}
            todo = [index for index in range(len(chunks)) if not wanted <= state.done.get(index, set())]
            images = sum(len(chunks[index]) for index in todo)
            state.log.note(f"time is left: {join_names(plan)} for {images} images that were seen without")
    finally:
        alarm.cancel()


def stop_models(state: State) -> None:
    """End the batch in flight: what it would still bring comes too late."""
    for runner in state.runners.values():
        runner.stop()


def run_sweep(job: Job, state: State, plan: Plan, todo: Sequence[int], kept: frozenset[str]) -> bool:
    """Once over the chunks `todo` with the plan, revised after each; False where the time, or a group's models, end.

    `kept`: groups that must keep a model in the plan; none for a further way through the images.
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
                if not kept:  # these images were at their turn before
                    raise
                state.log.note(f"{NO_MEMORY} for {len(pictures)} images, which are left for later: {error}")
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


def count_lacking(chunks: Sequence[range], state: State, name: str) -> int:
    """How many of the images lack a pass."""
    return sum(len(images) for index, images in enumerate(chunks) if name not in state.done.get(index, set()))


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
