"""Faults during a run: kills, time limits, models that become slower, full disks."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from benchmarks.endurance.runs import Museum, finish, read_notes, time_run
from inference.task.ids import read_ids

KILLS, SEED = 20, 5
SHARES = (1.0, 0.5, 0.25, 0.1, 0.02)


def wait_for_work(out: Path) -> None:
    """Wait until Python has started and the work folder exists."""
    while not out.with_name(f"{out.name}.work").exists():
        time.sleep(0.01)


def kill_at_random(museum: Museum, folder: Path, wait: float) -> None:
    """Kill runs with -9 at random moments, continue each, and compare them with an undisturbed run."""
    wait /= 10
    process = museum.start(folder / "whole" / "submission.csv", wait)
    wait_for_work(folder / "whole" / "submission.csv")
    started = time.perf_counter()
    assert finish(process)[0] == 0
    whole = time.perf_counter() - started
    random = np.random.default_rng(SEED)
    equal = killed = continued = 0
    for number in range(KILLS):
        out = folder / f"killed-{number}" / "submission.csv"
        process = museum.start(out, wait)
        wait_for_work(out)
        time.sleep(float(random.uniform(0, whole)))
        process.send_signal(signal.SIGKILL)
        killed += finish(process)[0] == -signal.SIGKILL
        code, errors = finish(museum.start(out, wait))
        continued += "an earlier run: " in errors
        equal += code == 0 and out.read_bytes() == (folder / "whole" / "submission.csv").read_bytes()
    print(
        f"{KILLS} runs of about {whole:.0f} s from the work folder to the end: {killed} killed with -9 before their "
        f"end, {continued} of them after their first chunk; after a restart, {equal} of {KILLS} end with the bytes of "
        "the undisturbed run"
    )


def shorten_the_limit(museum: Museum, folder: Path, wait: float) -> None:
    """Run with time limits that are fractions of the run time without a limit."""
    out = folder / "limits" / "submission.csv"
    needed, code, _ = time_run(museum, out, wait)
    full = museum.score(out)
    print(f"without a time limit: {needed:.1f} s, exit code {code}, F2 {full:.4f}")
    assert finish(museum.start(folder / "prior" / "submission.csv", wait, "--time-limit", "0.1"))[0] == 3
    print(f"prior labels only: F2 {museum.score(folder / 'prior' / 'submission.csv'):.4f}")
    for share in SHARES:
        spent, code, _ = time_run(museum, out, wait, limit=share * needed)
        f2 = museum.score(out)
        print(
            f"time limit {share:4.0%}, {share * needed:6.1f} s: run time {spent:6.1f} s, exit code {code}, "
            f"F2 {f2:.4f}, {f2 / full:.1%} of a full run\n{read_notes(out)}"
        )


def slow_down(museum: Museum, folder: Path, wait: float) -> None:
    """Make each model in turn five times slower halfway, under a time limit of 1.2 times the run time."""
    out = folder / "slower" / "submission.csv"
    needed, _, _ = time_run(museum, out, wait)
    models = museum.read_bundle()[0].models
    half = len(read_ids(museum.sample)) * sum(len(model.views) for model in models) // 2
    for model in models:
        spent, code, _ = time_run(museum, out, wait, 1.2 * needed, half, model.name)
        print(
            f"{model.name} five times slower halfway: run time {spent:.1f} s of {1.2 * needed:.1f} s, "
            f"exit code {code}, F2 {museum.score(out):.4f}\n{read_notes(out)}"
        )


@contextmanager
def mount(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small disk; needs the permission to mount."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_the_disk(museum: Museum, folder: Path, wait: float) -> None:
    """Write to disks that are full from the start, become full halfway, or are read-only."""
    finish(museum.start(folder / "whole" / "submission.csv", 0))
    with mount(folder / "small", "64k") as disk:
        code, errors = finish(museum.start(disk / "submission.csv", 0))
        print(f"disk of 64 kB: exit code {code}: {errors.strip()}")
    with mount(folder / "filling", "2m") as disk:
        out = disk / "submission.csv"
        process = museum.start(out, wait / 4)
        marks = disk / "submission.csv.work" / "chunks.jsonl"
        while not (marks.exists() and marks.read_bytes().count(b"\n") >= 1):
            time.sleep(0.05)
        with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        code, _ = finish(process)
        same = out.read_bytes() == (folder / "whole" / "submission.csv").read_bytes()
        result = f"F2 {museum.score(out):.4f}, {'the' if same else 'not the'} bytes of the undisturbed run"
        notes = read_notes(out) if out.with_name("run_log.json").exists() else "    no run log"
        print(f"disk of 2 MB, filled by another process after the first chunk: exit code {code}, {result}\n{notes}")
    with mount(folder / "read-only", "2m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        code, errors = finish(museum.start(disk / "submission.csv", 0))
        print(f"read-only disk: exit code {code}: {errors.strip()}")
