"""The order of the steps from a folder of images to submission.csv; no other module knows it."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import PIL
from numpy.typing import NDArray

from inference import __version__
from inference.budget import estimate_reserve, fits_chunk
from inference.combine import leave_stackers_out, mix_scores
from inference.decide import decide, list_label_ids
from inference.decode import decode_ahead
from inference.errors import ImageError, ManifestError, SessionError
from inference.files import make_folder, replace_file
from inference.images import Geometry, Picture, find_images, read_geometry, read_picture
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
from inference.run_log import Progress, RunLog, format_seconds
from inference.sessions import ModelSession
from inference.stackers import StackerSession, load_stackers
from inference.submission import check_submission, check_writable, read_ids, write_submission
from inference.traits import TRAITS

DECIDE_ROWS = 1024  # images scored and decided at a time, so that memory does not grow with their number


@dataclass(frozen=True)
class Predictions:
    """What the models say of the images; NaN where an image is unreadable.

    `scores`: by model name, (images, labels of its group); `traits`: (images, 4).
    """

    scores: dict[str, NDArray[np.float16]]
    traits: NDArray[np.float32]

    def take(self, rows: slice) -> "Predictions":
        """Those of some images."""
        return Predictions({name: scores[rows] for name, scores in self.scores.items()}, self.traits[rows])


@dataclass(frozen=True)
class Request:
    """One run: where things are and where they go; `time_limit` in seconds, None for the manifest's."""

    bundle: Path
    images: Path
    sample: Path
    out: Path
    time_limit: float | None = None
    predictions: Path | None = None


def run(request: Request) -> bool:
    """Write submission.csv and run_log.json for every id of the sample; False where the time did not suffice.

    Everything is checked before the first model is loaded, and a submission of the prior's labels is written: whatever
    happens later, a file is there that scores. Raises VitrineError; an image that cannot be read raises nothing and
    keeps the prior's labels, and so do the images that the time limit leaves no time for.
    """
    started = time.perf_counter()
    log = RunLog()
    with log.time_stage("check"):
        check_writable(request.out)
        if request.predictions:
            make_folder(request.predictions)
        manifest, labels = read_bundle(request.bundle)
        ids = read_ids(request.sample)
        paths = find_images(request.images, ids)
    with log.time_stage("prior"):
        prior = tuple(sorted(manifest.decision.prior))
        write_submission(request.out, ids, [prior] * len(ids))
    with log.time_stage("load"):
        sessions = [
            ModelSession(model.name, request.bundle / model.onnx["fp32"].file, len(labels.columns(model.group)))
            for model in manifest.models
        ]
        try:
            stackers = load_stackers(manifest, labels, request.bundle)
        except SessionError as error:
            log.note_degraded(f"{error}; the blend decides alone")
            manifest, stackers = leave_stackers_out(manifest), ()
    time_limit = request.time_limit or manifest.runtime.time_limit
    describe_run(log, manifest, sessions, len(ids), time_limit)

    progress = Progress(len(ids), started, time_limit)
    deadline = started + time_limit
    predictions, seen = predict_images(manifest, labels, sessions, ids, paths, stackers, deadline, progress, log)
    if seen < len(ids):
        note = f"{len(ids) - seen} of {len(ids)} images keep the prior's labels: no time left for them"
        log.note_degraded(f"{note} before the limit of {format_seconds(time_limit)}")
    with log.time_stage("decide"):
        label_ids = decide_images(predictions, manifest, labels, stackers, log)
    with log.time_stage("write"):
        if request.predictions:
            write_predictions(request.predictions, ids, predictions)
        write_submission(request.out, ids, label_ids)
        check_submission(request.out, ids, labels)
    log.seconds["total"] = time.perf_counter() - started
    log.facts["images_per_second"] = round(seen / log.seconds["predict"], 2)
    log.write(request.out.with_name("run_log.json"))
    print(
        f"{request.out}: {len(ids)} images, {len(log.unreadable)} of them unreadable, "
        f"{log.seconds['total']:.1f} s, {log.facts['images_per_second']} images/s"
    )
    return not log.degraded


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


def describe_run(
    log: RunLog, manifest: Manifest, sessions: Sequence[ModelSession], images: int, time_limit: float
) -> None:
    """Put into the log, and tell, what is about to run where."""
    log.facts |= {
        "vitrine": __version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "providers": sorted({session.provider for session in sessions}),
        "images": images,
        "time_limit": time_limit,
        "models": {model.name: list(model.views) for model in manifest.models},
        "passes_per_image": sum(len(model.views) for model in manifest.models),
    }
    passes, providers = log.facts["passes_per_image"], ", ".join(log.facts["providers"])
    print(f"{images} images, {len(sessions)} models, {passes} passes an image on {providers}", file=sys.stderr)


def predict_images(
    manifest: Manifest,
    labels: Labels,
    sessions: Sequence[ModelSession],
    ids: Sequence[str],
    paths: Sequence[Path | None],
    stackers: Sequence[StackerSession],
    deadline: float,
    progress: Progress,
    log: RunLog,
) -> tuple[Predictions, int]:
    """Each model's probabilities of each image, mean over the model's views, and how many images there was time for.

    `paths` as `find_images` gives them; `deadline`: of time.perf_counter(). Images go through in chunks of the batch
    size: decoded once, seen by every model, forgotten.
    """
    geometries = {model.name: read_geometry(model) for model in manifest.models}
    predictions = Predictions(
        {
            model.name: np.full((len(ids), len(labels.columns(model.group))), np.nan, np.float16)
            for model in manifest.models
        },
        np.full((len(ids), len(TRAITS)), np.nan, np.float32),
    )
    runtime = manifest.runtime
    read = partial(read_picture, geometries=set(geometries.values()), max_pixels=runtime.max_pixels)
    chunk_seconds: list[float] = []
    reserve, seen = 0.0, 0
    with (
        log.time_stage("predict"),
        closing(decode_ahead(paths, read, runtime.batch_size, runtime.image_seconds)) as chunks,
    ):
        began = time.perf_counter()
        for start, chunk in chunks:
            rows = []
            for row, picture in enumerate(chunk, start):
                if isinstance(picture, ImageError):
                    log.note_unreadable(ids[row], str(picture))
                else:
                    rows.append(row)
            readable = [picture for picture in chunk if not isinstance(picture, ImageError)]
            if readable:
                run_chunk(manifest.models, sessions, geometries, readable, rows, predictions, log)
            seen += len(chunk)
            progress.advance(len(chunk))
            now = time.perf_counter()
            chunk_seconds.append(now - began)
            if not reserve:
                decide_images(predictions.take(slice(seen)), manifest, labels, stackers, log)
                reserve = estimate_reserve(time.perf_counter() - now, seen, len(ids), log.seconds["prior"])
            if not fits_chunk(deadline - time.perf_counter(), chunk_seconds, reserve):
                break
            began = time.perf_counter()
    return predictions, seen


def run_chunk(
    models: Sequence[Model],
    sessions: Sequence[ModelSession],
    geometries: Mapping[str, Geometry],
    chunk: Sequence[Picture],
    rows: Sequence[int],
    predictions: Predictions,
    log: RunLog,
) -> None:
    """Every model on the images of one chunk; `rows`: their places in `predictions`."""
    distinct = set(geometries.values())
    batches = {geometry: np.stack([picture.squares[geometry] for picture in chunk]) for geometry in distinct}
    for model, session in zip(models, sessions, strict=True):
        with log.time_passes(model.name, len(chunk) * len(model.views)):
            probabilities = session.predict_views(batches[geometries[model.name]], model.views)
        predictions.scores[model.name][rows] = probabilities
    predictions.traits[rows] = [picture.traits for picture in chunk]


def decide_images(
    predictions: Predictions, manifest: Manifest, labels: Labels, stackers: Sequence[StackerSession], log: RunLog
) -> list[tuple[int, ...]]:
    """Label ids of each image, ascending; the prior's for an image without predictions.

    Where a stacker fails, the blend decides, and the log says so.
    """
    try:
        return decide_rows(predictions, manifest, labels, stackers)
    except SessionError as error:
        log.note_degraded(f"{error}; the blend decides alone")
        return decide_rows(predictions, leave_stackers_out(manifest), labels, ())


def decide_rows(
    predictions: Predictions, manifest: Manifest, labels: Labels, stackers: Sequence[StackerSession]
) -> list[tuple[int, ...]]:
    """As decide_images; raises SessionError where a stacker fails."""
    prior = tuple(sorted(manifest.decision.prior))
    label_ids: list[tuple[int, ...]] = []
    for start in range(0, len(predictions.traits), DECIDE_ROWS):
        part = predictions.take(slice(start, start + DECIDE_ROWS))
        scores = mix_scores(part.scores, part.traits, manifest, labels, stackers)
        unreadable = np.isnan(scores.sum(axis=1))
        chosen = list_label_ids(decide(np.nan_to_num(scores), labels, manifest.decision), labels)
        label_ids += [prior if missing else given for missing, given in zip(unreadable, chosen, strict=True)]
    return label_ids


def write_predictions(folder: Path, ids: Sequence[str], predictions: Predictions) -> None:
    """MODEL.npy, float16 (images, labels of the model's group), for each model, and their ids in ids.txt."""
    with replace_file(folder / "ids.txt") as temporary:
        temporary.write_text("".join(f"{image_id}\n" for image_id in ids), encoding="utf-8")
    for name, scores in predictions.scores.items():
        with replace_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, scores)
