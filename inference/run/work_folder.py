"""The work folder of a run, beside its output: what identifies the run, and what its marks may contain."""

import shutil
import typing
from collections.abc import Sequence
from pathlib import Path

from inference.basics.errors import OutputError
from inference.basics.files import hash_file, hash_texts
from inference.manifest.file import MANIFEST_NAME, list_bundle_files
from inference.manifest.values import Precision
from inference.run.plan import list_passes
from inference.run.state import TRAITS_NAME, Job
from inference.run.store import Checks, Mark, Store

ROW_BYTES = 128  # upper estimate for a row of a submission


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
    arrays = job.predictions | {TRAITS_NAME: job.traits}
    folder = out.with_name(f"{out.name}.work")
    store = Store(folder, identity, arrays, job.request.fresh, make_checks(job, [times for _, times in files]))
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
