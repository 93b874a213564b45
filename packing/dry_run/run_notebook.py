"""The dry run of the notebook: an environment similar to Kaggle's image, with its limits and without a network."""

import contextlib
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import nbclient
import nbconvert
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets.config import Config

from inference.basics.deadline import Deadline
from inference.basics.errors import RehearsalError
from inference.basics.files import make_folder, replace_file
from inference.manifest.bundle import read_bundle
from inference.manifest.file import NO_DATASETS, list_datasets
from packing.check.check import check_kernel
from packing.check.competition import open_contents
from packing.check.mount import mount_competition, refuse_inside
from packing.dry_run.environment import prepare_image
from packing.dry_run.limits import GB, KERNEL, Limits, hold_limits
from packing.dry_run.outcome import LOG, SUBMISSION, Rehearsal, read_outcome
from packing.dry_run.scratch import make_scratch
from packing.dry_run.walls import Walls, build_walls
from packing.pack.metadata import NOTEBOOK
from packing.pack.render_notebook import check_notebook

Layout = Literal["newer", "older"]
PAGE = "kernel.html"
FAILURES = (
    nbclient.exceptions.CellTimeoutError,
    nbclient.exceptions.CellExecutionError,
    RuntimeError,  # nbclient's: its Python did not start, or died
)
START_SECONDS = 600.0  # for the notebook's Python
# Assumed, not measured: how much slower Kaggle is outside of the script. It reads Python's packages from a fresh image
# and the dataset over a network, and converts the page on slower cores.
SLOWER = 5
_FIRST = re.compile(r"first prediction ([\d.]+) s after the notebook's start")
_DEGRADED = re.compile(r"DEGRADED: ([^\n\x1b]+)")


@dataclass(frozen=True)
class KaggleRehearsal:
    """A successful dry run of a notebook."""

    run: Rehearsal
    first_prediction: float | None
    """Seconds from the notebook's first line to its first batch; None if the notebook does not print it."""
    seconds: float
    """From the start of Python to the saved page."""
    outside: float
    """Those of them outside of the script's own time: before the first cell, and after the script's end."""
    walls: str
    """Lines on the isolation and the limits."""

    def describe(self) -> str:
        """Return a summary of five lines, and one for each reason of a degraded submission."""
        first = "an unknown time" if self.first_prediction is None else f"{self.first_prediction:.1f} s"
        return (
            f"{self.walls}\n"
            f"notebook: run time {self.seconds:.1f} s, first prediction after {first}\n"
            f"{self._judge_reserve()}\n"
            f"{self.run.describe()}"
        )

    def _judge_reserve(self) -> str:
        expected, reserve = SLOWER * self.outside, self.run.reserve
        verdict = (
            f"the notebook reserve is {reserve:.0f} s"
            if expected <= reserve
            else f"DOES NOT FIT the notebook reserve of {reserve:.0f} s: a tenth of the time limit, at most "
            "`runtime.notebook_reserve`; raise them"
        )
        return f"outside the script: {self.outside:.1f} s here, about {expected:.0f} s on Kaggle (x{SLOWER}); {verdict}"


def rehearse_like_kaggle(
    bundle: Path,
    competition: Path,
    out: Path,
    cache: Path,
    limit: int | None = None,
    time_limit: float | None = None,
    layout: Layout = "newer",
    python: str | None = None,
    limits: Limits = KERNEL,
    expected: int | None = None,
    attached: Mapping[str, Path] = NO_DATASETS,
) -> KaggleRehearsal:
    """Execute the notebook of the dataset `bundle` in a tree like /kaggle; write its page and results to `out`.

    `competition`: its folder, as Kaggle mounts it; `limit`: number of images from the sample's start; `time_limit`:
    seconds from the start of Python to the saved page (default: the manifest's); `layout`: of Kaggle's mounts;
    `python`, `cache`: see `prepare_image`; `expected`: number of test images of the rerun (default: the manifest's,
    else those of the sample); `attached`: OWNER/SLUG -> local copy of an attached dataset. Raises PackError: the
    notebook or its metadata has changed since packing, or the competition's folder differs from the task. Raises
    SubmissionError, or RehearsalError: a cell fails, the notebook exceeds a limit, or it predicts nothing; the page
    then has the outputs up to that point.
    """
    manifest, labels = read_bundle(bundle, attached)
    kernel = bundle.resolve().parent / "kernel"
    check_kernel(kernel, bundle, list_datasets(manifest))
    refuse_inside(out, competition)
    contents = open_contents(competition, manifest.task, labels)
    seconds = manifest.runtime.choose_time_limit(time_limit)
    images = expected or manifest.runtime.images or len(contents.sample.ids)
    interpreter = prepare_image(cache, python)
    make_folder(out)
    with make_scratch(out, "kaggle-") as root, hold_limits(limits) as held:
        place = build_tree(root, layout, check_notebook(kernel / NOTEBOOK), bundle, attached)
        mount_competition(competition, place, manifest.task, contents, limit)
        walls = build_walls(
            [root / "input", bundle, *attached.values(), competition, interpreter.parent.parent], root / "hooks"
        )
        notebook = nbformat.read(kernel / NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
        command = [*held.prefix, *walls.prefix, str(interpreter)]
        deadline, clock = Deadline(time.monotonic(), seconds), time.time()
        try:
            began, failure = execute(
                notebook, command, root / "working", make_environment(root, seconds, walls), deadline
            )
        finally:
            write_notebook_page(notebook, out / PAGE)
        spent = deadline.spent()
        try:
            check_end(failure, held.count_kills(), limits, deadline, spent)
            run = read_outcome(root / "working", place, manifest, labels, seconds, images)
        except RehearsalError as error:
            reasons = "".join(f"; {reason}" for reason in _DEGRADED.findall(_read_output(notebook)))
            raise RehearsalError(f"{kernel / NOTEBOOK}: {error}{reasons}; see {out / PAGE}") from error
        # The log is the last file that the script writes.
        ended = (root / "working" / LOG).stat().st_mtime - clock
        for name in (SUBMISSION, LOG):
            os.replace(root / "working" / name, out / name)
    outside = began + spent - min(max(ended, began), spent)
    return describe_output(run, _read_output(notebook), spent, outside, f"{walls.description}\n{held.description}")


def describe_output(run: Rehearsal, output: str, spent: float, outside: float, walls: str) -> KaggleRehearsal:
    """Return the outcome of a notebook, from that of its script and the text that its cells printed."""
    first = _FIRST.search(output)
    # The script's reasons, and those of the notebook.
    run = replace(run, degraded=tuple(dict.fromkeys((*run.degraded, *_DEGRADED.findall(output)))))
    return KaggleRehearsal(run, float(first[1]) if first else None, spent, outside, walls)


def build_tree(
    root: Path,
    layout: Layout,
    names: tuple[str, str, str],
    bundle: Path,
    attached: Mapping[str, Path] = NO_DATASETS,
) -> Path:
    """Make a tree like /kaggle in `root`; return the place of the competition's folder, which is not made.

    `names`: owner, slug, competition; `attached`: OWNER/SLUG -> local copy of an attached dataset.
    """
    owner, slug, competition = names
    newer = layout == "newer"
    place = root / "input" / (f"competitions/{competition}" if newer else competition)
    for folder in (place.parent, root / "working", root / "home", root / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    for dataset, folder in {f"{owner}/{slug}": bundle, **attached}.items():
        mount = root / "input" / (f"datasets/{dataset}" if newer else dataset.partition("/")[2])
        mount.parent.mkdir(parents=True, exist_ok=True)
        mount.symlink_to(folder.resolve(), target_is_directory=True)
    return place


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
    notebook: nbformat.NotebookNode, python: list[str], working: Path, environment: dict[str, str], deadline: Deadline
) -> tuple[float, Exception | None]:
    """Run every cell in a separate Python, connected by Unix sockets because it has no network.

    Returns the deadline's seconds spent before the first cell, and one of nbclient's FAILURES or None; `notebook` has
    the outputs even then.
    """
    began: list[float] = []

    def find_left(cell: object = None) -> float:
        return max(deadline.left(), 0.001)  # nbclient takes 0 for no limit

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
        client = nbclient.NotebookClient(
            notebook,
            km=manager,
            startup_timeout=math.ceil(min(START_SECONDS, find_left())),
            timeout=math.ceil(find_left()),  # of the replies that no cell waits for
            timeout_func=find_left,
            on_notebook_start=lambda notebook: began.append(deadline.spent()),
        )
        client.owns_km = True
        try:
            client.execute(cwd=str(working), env=environment)
        except FAILURES as error:
            return began[0] if began else deadline.spent(), error
    return began[0], None


def check_end(failure: Exception | None, kills: int, limits: Limits, deadline: Deadline, spent: float) -> None:
    """Check how the notebook ended: what nbclient raised, `kills` processes killed for lack of memory, seconds `spent`.

    Raises RehearsalError.
    """
    memory = f"{limits.memory / GB:.3g} GB"
    if kills:
        raise RehearsalError(
            f"out of memory: exceeded {memory}, {kills} processes killed; Kaggle kills such a notebook"
        ) from failure
    if isinstance(failure, nbclient.exceptions.CellExecutionError):
        more = f" (limit {memory})" if failure.ename == "MemoryError" else ""
        raise RehearsalError(f"failed with {failure.ename}{more}: {failure.evalue}") from failure
    if spent > deadline.limit:
        raise RehearsalError(
            f"{'stopped after' if failure else 'took'} {spent:.1f} s; wanted at most its time limit of "
            f"{deadline.limit:.0f} s from the start of Python to the saved page; "
            "raise --time-limit or `runtime.notebook_reserve`"
        ) from failure
    if failure:
        raise RehearsalError(f"its Python died: {failure}") from failure


def write_notebook_page(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write the executed notebook as one HTML file, without the code of cells that have the tag `hide-input`."""
    settings = Config({"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": ["hide-input"]}})
    page, _ = nbconvert.HTMLExporter(config=settings).from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    with replace_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


@contextlib.contextmanager
def _make_folder_for_sockets() -> Iterator[Path]:
    # The path of a socket has at most 107 bytes, so the folder cannot be below a long path.
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        yield Path(folder)


def _read_output(notebook: nbformat.NotebookNode) -> str:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output.get("text", "") for output in outputs)
