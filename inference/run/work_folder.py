"""The work folder of a run, beside its output: the room for it, what identifies the run, what its marks may hold."""

import shutil
import typing
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.basics.errors import ManifestError, OutputError
from inference.basics.files import hash_file, hash_texts
from inference.basics.memory import measure_available
from inference.ensemble.kept_scores import measure_scores
from inference.manifest.file import MANIFEST_NAME, list_bundle_files
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.manifest.task import Task
from inference.manifest.values import Precision
from inference.run.plan import list_passes
from inference.run.state import TRAITS_NAME, Job, Request
from inference.run.store import Checks, Mark, Store
from inference.task.sample import Sample

# Upper estimates for a row of a submission without the names of its labels, a number and a label id in it.
ROW_BYTES, CELL_BYTES, ID_BYTES = 128, 18, 12


def open_store(job: Job) -> Store:
    """Open the work folder beside the output; fill the predictions of an earlier run into the arrays.

    Raises StoreError: the folder belongs to another run. Raises OutputError: too little free disk space.
    """
    out = job.request.out
    files = [describe_file(path) for path in job.paths]
    identity = {
        "bundle": hash_texts(entry.sha256 for _, entry in list_bundle_files(job.manifest)),
        "manifest": hash_file(job.request.bundle / MANIFEST_NAME),
        "list of images": hash_texts(job.ids),
        "folder of images": hash_texts(name_and_size for name_and_size, _ in files),
        "precision": job.request.precision or "the faster",
    }
    arrays = {name: kept.array for name, kept in job.predictions.items()} | {TRAITS_NAME: job.traits}
    folder = name_folder(out)
    store = Store(folder, identity, arrays, job.request.fresh, make_checks(job, [times for _, times in files]))
    needed = store.measure_need() + 2 * measure_submission(job.manifest.task, job.labels, job.sample)
    if job.request.predictions:
        needed += sum(kept.array.nbytes for kept in job.predictions.values())
    free = shutil.disk_usage(store.folder).free
    if free < needed:
        store.close() if store.marks else store.remove()
        raise OutputError(
            f"{out.parent}: found {free / 1e6:.1f} MB of free space; wanted {needed / 1e6:.1f} MB for predictions and "
            "submission; free some space or choose another folder with --out"
        )
    return store


def name_folder(out: Path) -> Path:
    """Return the work folder of the submission `out`."""
    return out.with_name(f"{out.name}.work")


def measure_submission(task: Task, labels: Labels, sample: Sample) -> int:
    """Return an upper estimate of the bytes of a submission; a new one is written beside the old one."""
    form = task.submission
    columns = len(labels.ids) if form.layout == "wide" else 0
    names = (form.top_k or 0) * (max(map(len, labels.names)) if form.content == "label_name" else ID_BYTES)
    return len(sample.rows) * (ROW_BYTES + CELL_BYTES * columns + names)


def check_room(request: Request, manifest: Manifest, labels: Labels, sample: Sample) -> None:
    """Raise ManifestError if the scores of all images need more memory or disk than is free, before any is allocated.

    `open_store` checks the disk more exactly, as an earlier run may have saved scores there; here it is checked where
    keeping fewer scores helps.
    """
    images, task, is_one = len(sample.ids), manifest.task, manifest.task.type == "multiclass"
    scores = measure_scores(manifest, labels, images)
    numbers = 0 if task.submission.holds_labels else images * len(labels.ids) * np.dtype(np.float64).itemsize
    memory = scores + numbers
    disk = scores * (2 if request.predictions else 1) + 2 * measure_submission(task, labels, sample)
    free_memory, free_disk = measure_available(), float(shutil.disk_usage(request.out.parent).free)
    if memory <= free_memory and (not is_one or disk <= free_disk or name_folder(request.out).exists()):
        return
    key, remedy = f"`models`: found {len(manifest.models)}", "remove models, or use a larger machine"
    if is_one:
        found = "null" if manifest.runtime.keep_top is None else manifest.runtime.keep_top
        key, remedy = f"`runtime.keep_top`: found {found}", "keep fewer scores per image, such as 100"
    raise ManifestError(
        f"{MANIFEST_NAME}: {key}; the scores of {images} images, {len(labels.ids)} labels and {len(manifest.models)} "
        f"models need {memory / 1e6:,.0f} MB of memory and {disk / 1e6:,.0f} MB of disk; found "
        f"{free_memory / 1e6:,.0f} MB of memory and {free_disk / 1e6:,.0f} MB of disk free; {remedy}"
    )


def describe_file(path: Path | None) -> tuple[str, str]:
    """Return name and size of an image file, which identify the folder of images, and the times of its last changes.

    A copy may keep the time of the content, but no program can set that of the inode. It also changes if the file is
    renamed or its rights change; then its chunk is predicted again without need.
    """
    if path is None:
        return "none", ""
    try:
        found = path.stat()
    except OSError as error:  # a link to nothing, or a folder without the right to enter it
        return f"{path.name} unreadable", str(error.errno)
    return f"{path.name} {found.st_size}", f"{found.st_mtime_ns} {found.st_ctime_ns}"


def make_checks(job: Job, times: Sequence[str]) -> Checks:
    """Return the checks of saved chunks; `times`: of the last changes of each image file."""
    chunks, passes = job.list_chunks(), {str(one) for one in list_passes(job.manifest)}

    def accept(start: int, stop: int, mark: Mark) -> bool:
        index, ran, precisions, unreadable = (mark.get(key) for key in ("chunk", "passes", "precisions", "unreadable"))
        return (
            type(index) is int
            and 0 <= index < len(chunks)
            and chunks[index] == range(start, stop)
            and isinstance(ran, list)
            and all(isinstance(name, str) and name in passes for name in ran)
            and isinstance(precisions, dict)
            and precisions.keys() <= job.predictions.keys()
            and all(precision in typing.get_args(Precision) for precision in precisions.values())
            and isinstance(unreadable, dict)
            and unreadable.keys() <= set(job.ids[start:stop])
            and all(isinstance(reason, str) for reason in unreadable.values())
        )

    return Checks(lambda start, stop: hash_texts(times[start:stop]), accept)
