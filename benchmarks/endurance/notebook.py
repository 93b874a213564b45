"""Kills of a whole notebook at random moments: of its script or trial, or of its own Python while neither runs."""

import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.endurance.runs import Museum
from inference.basics.deadline import Deadline
from inference.basics.errors import SubmissionError
from packing.check.competition import open_contents
from packing.check.mount import mount_competition
from packing.dry_run.run_notebook import build_tree, execute, make_environment
from packing.dry_run.walls import Walls
from packing.pack.metadata import NOTEBOOK
from packing.pack.render_notebook import check_notebook

KILLS, SEED, IMAGES, WORKERS = 200, 7, 64, 2
LIMIT = 600.0  # seconds
PROCESSES = {"ipykernel_launcher": "notebook", "inference.models.devices": "trial", "inference.pyz": "script"}


@dataclass(frozen=True)
class Run:
    """One notebook."""

    killed: str
    """The process that was killed; empty if none was."""
    valid: bool
    ended: bool
    """The notebook came to its end."""
    submission: bytes
    seconds: float
    """From its first submission to the end of its last cell."""


def kill_notebooks(museum: Museum, folder: Path, wait: float) -> None:
    """Kill 200 notebooks with -9, once each, between their first submission and the end of their page."""
    whole = run_notebook(museum, None)
    moments = np.random.default_rng(SEED).uniform(0, whole.seconds, KILLS).tolist()
    with ProcessPoolExecutor(WORKERS) as pool:
        runs = list(pool.map(partial(run_notebook, museum), moments))
    counts = Counter(run.killed for run in runs)
    print(f"{KILLS} notebooks of about {whole.seconds:.0f} s: killed {describe(counts)}")
    print(f"valid submissions: {sum(run.valid for run in runs)} of {KILLS}")
    for process in counts:
        own = [run for run in runs if run.killed == process]
        same = sum(run.submission == whole.submission for run in own)
        ended = sum(run.ended for run in own)
        print(f"{process or 'none'}: {ended} of {len(own)} came to their end, {same} with the undisturbed run's bytes")


def describe(counts: Counter[str]) -> str:
    """Format as in 'script 120, notebook 70, none 10'."""
    return ", ".join(f"{process or 'none'} {count}" for process, count in counts.most_common())


def run_notebook(museum: Museum, moment: float | None) -> Run:
    """Execute the packed notebook; kill a process of it `moment` seconds after its first submission, or none."""
    import nbformat

    warnings.simplefilter("ignore")  # of zmq and tornado
    kernel = museum.dataset.parent / "kernel" / NOTEBOOK
    manifest, labels = museum.read_bundle()
    contents = open_contents(museum.museum, manifest.task, labels)
    with tempfile.TemporaryDirectory(prefix="notebook-", ignore_cleanup_errors=True) as temporary:
        root = Path(temporary)
        names = check_notebook(kernel)
        place = build_tree(root, "newer", names, museum.dataset)
        mount_competition(museum.museum, place, manifest.task, contents, IMAGES)
        out = root / "working" / "submission.csv"
        notebook = nbformat.read(kernel, as_version=4)  # type: ignore[no-untyped-call]
        environment = make_environment(root, LIMIT, Walls("", ()))
        killed: list[str] = []
        first: list[float] = []
        killer = threading.Thread(target=kill_after, args=(root, out, moment, first, killed), daemon=True)
        killer.start()
        deadline = Deadline(time.monotonic(), LIMIT)
        _, failure = execute(notebook, [sys.executable], out.parent, environment, deadline)
        ended = failure is None
        seconds = time.monotonic() - first[0]
        killer.join(0.1)
        try:
            museum.check(out, place / manifest.task.sample)
            valid = True
        except SubmissionError:
            valid = False
        return Run(killed[0] if killed else "", valid, ended, out.read_bytes() if out.exists() else b"", seconds)


def kill_after(root: Path, out: Path, moment: float | None, first: list[float], killed: list[str]) -> None:
    """Wait for the first submission and note its time; then kill the script, the trial, or else the notebook."""
    while not out.exists():
        time.sleep(0.005)
    first.append(time.monotonic())
    if moment is None:
        return
    time.sleep(moment)
    found = find_processes(root)
    for name in ("script", "trial", "notebook"):
        if name in found:
            with suppress(ProcessLookupError):
                os.kill(found[name], signal.SIGKILL)
                killed.append(name)
            return


def find_processes(root: Path) -> dict[str, int]:
    """Return name -> id of the processes of the notebook in `root`."""
    found: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"KAGGLE_ROOT={root}".encode() in (process / "environ").read_bytes():
                command = (process / "cmdline").read_bytes().decode(errors="replace")
                found |= {name: int(process.name) for part, name in PROCESSES.items() if part in command}
    return found
