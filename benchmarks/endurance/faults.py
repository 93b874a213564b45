"""Faults during a run: kills, full disks."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from benchmarks.endurance.runs import Museum, Waits, finish, read_notes

KILLS, SEED = 20, 5


def wait_for_work(out: Path) -> None:
    """Wait until Python has started and the work folder exists."""
    while not out.with_name(f"{out.name}.work").exists():
        time.sleep(0.01)


def kill_at_random(museum: Museum, folder: Path, wait: float) -> None:
    """Kill runs with -9 at random moments, continue each, and compare them with an undisturbed run."""
    waits = Waits(wait / 10)
    process = museum.start(folder / "whole" / "submission.csv", waits)
    wait_for_work(folder / "whole" / "submission.csv")
    started = time.perf_counter()
    assert finish(process)[0] == 0
    whole = time.perf_counter() - started
    random = np.random.default_rng(SEED)
    equal = killed = continued = 0
    for number in range(KILLS):
        out = folder / f"killed-{number}" / "submission.csv"
        process = museum.start(out, waits)
        wait_for_work(out)
        time.sleep(float(random.uniform(0, whole)))
        process.send_signal(signal.SIGKILL)
        killed += finish(process)[0] == -signal.SIGKILL
        code, errors = finish(museum.start(out, waits))
        continued += "an earlier run: " in errors
        equal += code == 0 and out.read_bytes() == (folder / "whole" / "submission.csv").read_bytes()
    print(
        f"{KILLS} runs of about {whole:.0f} s from the work folder to the end: {killed} killed with -9 before their "
        f"end, {continued} of them after their first chunk; after a restart, {equal} of {KILLS} end with the bytes of "
        "the undisturbed run"
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
    finish(museum.start(folder / "whole" / "submission.csv", Waits()))
    with mount(folder / "small", "64k") as disk:
        code, errors = finish(museum.start(disk / "submission.csv", Waits()))
        print(f"disk of 64 kB: exit code {code}: {errors.strip()}")
    with mount(folder / "filling", "2m") as disk:
        out = disk / "submission.csv"
        process = museum.start(out, Waits(wait / 4))
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
        code, errors = finish(museum.start(disk / "submission.csv", Waits()))
        print(f"read-only disk: exit code {code}: {errors.strip()}")
