"""The dry run of the notebook: an environment similar to Kaggle's image, with its limits and without a network."""

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nbclient
import nbconvert
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets.config import Config

from inference.basics.errors import RehearsalError
from inference.basics.files import make_folder
from inference.manifest.bundle import read_bundle
from inference.task.ids import read_ids
from inference.task.submission import check_submission
from packing.dry_run.environment import prepare_image
from packing.dry_run.limits import GB, KERNEL, Limits, hold_limits
from packing.dry_run.run_script import Rehearsal, write_sample
from packing.dry_run.walls import Walls, build_walls
from packing.pack.metadata import NOTEBOOK
from packing.pack.render_notebook import check_notebook

Layout = Literal["newer", "older"]
RESULTS = ("submission.csv", "run_log.json")
PAGE = "kernel.html"
FAILURES = (
    nbclient.exceptions.CellTimeoutError,
    nbclient.exceptions.CellExecutionError,
    nbclient.exceptions.DeadKernelError,
)
_FIRST = re.compile(r"first prediction ([\d.]+) s after the notebook's start")


@dataclass(frozen=True)
class KaggleRehearsal:
    """A successful dry run of a notebook."""

    run: Rehearsal
    first_prediction: float | None
    """Seconds from the notebook's first line to its first batch; None if the notebook does not print it."""
    seconds: float
    """From the start of Python to the end of the last cell."""
    walls: str
    """Lines on the isolation and the limits."""

    def describe(self) -> str:
        """Return a summary of four lines."""
        first = "an unknown time" if self.first_prediction is None else f"{self.first_prediction:.1f} s"
        return (
            f"{self.walls}\n"
            f"notebook: run time {self.seconds:.1f} s, first prediction after {first}\n"
            f"{self.run.describe()}"
        )


def rehearse_like_kaggle(
    bundle: Path,
    images: Path,
    sample: Path,
    out: Path,
    cache: Path,
    limit: int | None = None,
    time_limit: float | None = None,
    layout: Layout = "newer",
    python: str | None = None,
    limits: Limits = KERNEL,
) -> KaggleRehearsal:
    """Execute the notebook of the dataset `bundle` in a tree like /kaggle; write its page and results to `out`.

    `limit`: number of images from the sample's start; `time_limit`: seconds (default: the manifest's); `layout`: of
    Kaggle's mounts; `python`, `cache`: see `prepare_image`. Raises SubmissionError, or RehearsalError: a cell fails or
    the notebook exceeds a limit; the page then has the outputs up to that point.
    """
    manifest, labels = read_bundle(bundle)
    kernel = bundle.resolve().parent / "kernel"
    names = check_notebook(kernel / NOTEBOOK)
    ids = read_ids(sample)[:limit]
    seconds = manifest.runtime.choose_time_limit(time_limit)
    interpreter = prepare_image(cache, python)
    make_folder(out)
    with tempfile.TemporaryDirectory(prefix="kaggle-", dir=out) as temporary, hold_limits(limits) as held:
        root = Path(temporary).resolve()
        build_tree(root, layout, names, bundle, images, sample, ids)
        inputs = [root / "input", bundle, images, interpreter.parent.parent]
        walls = build_walls(inputs, root / "hooks")
        environment = make_environment(root, seconds, walls)
        started = time.monotonic()
        notebook = nbformat.read(kernel / NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
        command = [*held.prefix, *walls.prefix, str(interpreter)]
        failure: Exception | None = None
        try:
            execute(notebook, command, root / "working", environment, seconds)
        except FAILURES as error:
            failure = error
        finally:
            spent = time.monotonic() - started
            write_notebook_page(notebook, out / PAGE)
        if failure or held.count_kills():
            what = describe_failure(failure, held.count_kills(), limits, seconds)
            raise RehearsalError(f"{kernel / NOTEBOOK}: {what}; see {out / PAGE}") from failure
        check_submission(root / "working" / RESULTS[0], ids, labels)
        log: dict[str, Any] = json.loads((root / "working" / RESULTS[1]).read_text(encoding="utf-8"))
        for name in RESULTS:
            os.replace(root / "working" / name, out / name)
    run = Rehearsal(len(ids), len(log["unreadable"]), log["seconds"]["total"], log["images_per_second"], seconds)
    first = _FIRST.search(_read_output(notebook))
    return KaggleRehearsal(run, float(first[1]) if first else None, spent, f"{walls.description}\n{held.description}")


def build_tree(
    root: Path, layout: Layout, names: tuple[str, str, str], bundle: Path, images: Path, sample: Path, ids: list[str]
) -> None:
    """Make a tree like /kaggle in `root`, with the train.csv beside the sample; `names`: owner, slug, competition."""
    owner, slug, competition = names
    newer = layout == "newer"
    dataset = root / "input" / (f"datasets/{owner}/{slug}" if newer else slug)
    place = root / "input" / (f"competitions/{competition}" if newer else competition)
    for folder in (dataset.parent, place, root / "working", root / "home", root / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    dataset.symlink_to(bundle.resolve(), target_is_directory=True)
    (place / "test").symlink_to(images.resolve(), target_is_directory=True)
    write_sample(place / "sample_submission.csv", ids)
    train = sample.with_name("train.csv")
    if train.is_file():
        shutil.copyfile(train, place / "train.csv")


def make_environment(root: Path, seconds: float, walls: Walls) -> dict[str, str]:
    """Return the environment variables of the notebook's Python."""
    return {
        "PATH": os.defpath,
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "tmp"),
        "LANG": "C.UTF-8",
        "KAGGLE_ROOT": str(root),
        "VITRINE_TIME_LIMIT": str(seconds),
        "PYTHONPATH": os.pathsep.join(walls.python_path),
    }


def execute(
    notebook: nbformat.NotebookNode, python: list[str], working: Path, environment: dict[str, str], seconds: float
) -> None:
    """Run every cell in a separate Python, connected by Unix sockets because it has no network.

    Raises nbclient's CellExecutionError, CellTimeoutError or DeadKernelError; `notebook` has the outputs even then.
    """
    with _make_folder_for_sockets() as folder:
        specification = {
            "argv": [*python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Kaggle",
            "language": "python",
        }
        (folder / "kaggle").mkdir()
        (folder / "kaggle" / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")
        manager = AsyncKernelManager(
            kernel_name="kaggle",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False),
            transport="ipc",
            ip=str(folder / "socket"),
        )
        client = nbclient.NotebookClient(notebook, km=manager, timeout=int(seconds) + 1)
        client.owns_km = True
        client.execute(cwd=str(working), env=environment)


def describe_failure(failure: Exception | None, kills: int, limits: Limits, seconds: float) -> str:
    """Describe a failure: `kills` processes killed for lack of memory, or what nbclient raised."""
    memory = f"{limits.memory / GB:.3g} GB"
    if kills:
        return f"out of memory: exceeded {memory}, {kills} processes killed; Kaggle kills such a notebook"
    if isinstance(failure, nbclient.exceptions.CellTimeoutError):
        return f"exceeded its time limit of {seconds:.0f} s"
    if isinstance(failure, nbclient.exceptions.CellExecutionError):
        more = f" (limit {memory})" if failure.ename == "MemoryError" else ""
        return f"failed with {failure.ename}{more}: {failure.evalue}"
    return "its Python died"


def write_notebook_page(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write the executed notebook as one HTML file, without the code of cells that have the tag `hide-input`."""
    settings = Config({"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": ["hide-input"]}})
    page, _ = nbconvert.HTMLExporter(config=settings).from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    path.write_text(page, encoding="utf-8")


@contextlib.contextmanager
def _make_folder_for_sockets() -> Iterator[Path]:
    # The path of a socket has at most 107 bytes, so the folder cannot be below a long path.
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        yield Path(folder)


def _read_output(notebook: nbformat.NotebookNode) -> str:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output.get("text", "") for output in outputs)
