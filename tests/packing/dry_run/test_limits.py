"""Limits of CPUs, memory and file size, enforced on real processes."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import packing.dry_run.cgroups
import packing.dry_run.limits
from packing.dry_run.cgroups import VERSIONS, Group, make_group
from packing.dry_run.limits import KERNEL, Limits, hold_limits

MB = 10**6
SMALL = Limits(cpus=1, memory=200 * MB, file=MB)
TAKE = "import sys, time; held = b'x' * int(sys.argv[1]); print(len(held), flush=True); time.sleep(float(sys.argv[2]))"

with make_group(200 * MB) as made:
    CGROUPS = made is not None
needs_cgroups = pytest.mark.skipif(not CGROUPS, reason="this system forbids cgroups")


@pytest.fixture
def no_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.dry_run.limits, "make_group", lambda memory: contextlib.nullcontext())


def take(prefix: tuple[str, ...], size: int, seconds: float = 0) -> subprocess.Popen[str]:
    """Start a process that allocates `size` bytes, prints their number, and holds them for `seconds`."""
    command = [*prefix, sys.executable, "-c", TAKE, str(size), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@needs_cgroups
def test_a_process_is_killed_and_counted_when_all_together_exceed_the_memory() -> None:
    with hold_limits(SMALL) as held:
        assert "200 MB" not in held.description and "0.2 GB of memory for all processes together" in held.description
        first = take(held.prefix, 110 * MB, 60)
        assert first.stdout and first.stdout.readline() == f"{110 * MB}\n", "one process alone fits"
        assert held.count_kills() == 0
        second = take(held.prefix, 110 * MB, 60)
        while all(process.poll() is None for process in (first, second)):
            time.sleep(0.05)
        assert -9 in (first.returncode, second.returncode) and held.count_kills() == 1
    first.communicate()
    second.communicate()


@needs_cgroups
def test_a_running_process_ends_with_its_cgroup() -> None:
    with hold_limits(SMALL) as held:
        left = take(held.prefix, MB, 600)
        assert left.stdout and left.stdout.readline()
        assert held.group and held.group.folder.is_dir()
    assert left.wait(10) == -9 and not held.group.folder.exists()
    left.communicate()


def test_without_a_cgroup_the_memory_limit_holds_for_the_data_of_each_process(no_cgroups: None) -> None:
    with hold_limits(SMALL) as held:
        assert "0.2 GB of memory for the data of each process (no cgroup permitted)" in held.description
        assert take(held.prefix, 50 * MB).communicate()[0] == f"{50 * MB}\n"
        output, errors = take(held.prefix, 250 * MB).communicate()
        assert output == "" and errors.endswith("MemoryError\n")
        assert held.count_kills() == 0


@pytest.mark.parametrize("group", [pytest.param(True, marks=needs_cgroups), False])
def test_the_cpus_and_the_file_size_are_limited(group: bool, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if not group:
        request.getfixturevalue("no_cgroups")
    program = "import os, pathlib, sys; print(len(os.sched_getaffinity(0)))\n"
    program += "pathlib.Path(sys.argv[1]).write_bytes(b'x' * int(sys.argv[2]))"
    with hold_limits(SMALL) as held:
        for size, end in ((MB, ""), (MB + 1, "OSError: [Errno 27] File too large")):
            command = [*held.prefix, sys.executable, "-c", program, str(tmp_path / "file"), str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.stdout == "1\n" and end in done.stderr and bool(end) == bool(done.returncode)
    assert held.description.startswith(f"limits: 1 of {os.cpu_count()} CPUs, 0.2 GB of memory ")
    assert held.description.endswith(", files up to 0.001 GB")


def test_a_machine_smaller_than_a_kernel_is_reported(monkeypatch: pytest.MonkeyPatch, no_cgroups: None) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2_000_000}.__getitem__)
    with hold_limits(KERNEL) as held:
        assert held.description == (
            "limits: 2 of 8 CPUs (wanted 4), 31 GB of memory (this machine has 8.19 GB) for the data of each process "
            "(no cgroup permitted), files up to 20 GB"
        )


TREES = "tmpfs {root} tmpfs rw 0 0\ncgroup {root}/cpu cgroup rw,cpu 0 0\ncgroup {root}/memory cgroup rw,memory 0 0\n"
UNIFIED = "cgroup2 {root}/unified cgroup2 rw,nosuid 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "own", "places"),
    [
        (UNIFIED, "0::/user/shell\n", ["unified/user/shell", "unified/user"]),
        (UNIFIED, "0::/\n", ["unified"]),
        (TREES, "4:cpuset,memory:/a/b\n3:cpu:/\n", ["memory/a/b", "memory/a"]),
        (TREES + UNIFIED, "4:memory:/a\n0::/\n", ["unified", "memory/a", "memory"]),
        ("", "0::/\n", []),
    ],
)
def test_cgroups_are_tried_below_and_beside_the_current_one(
    mounts: str, own: str, places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(mounts.format(root=tmp_path))
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(packing.dry_run.cgroups, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(packing.dry_run.cgroups, "OWN", tmp_path / "own")
    tried: list[str] = []

    def refuse(prefix: str, dir: Path) -> str:
        tried.append(str(dir.relative_to(tmp_path)))
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with make_group(MB) as group:
        assert group is None and tried == places


@pytest.mark.parametrize(
    ("version", "swap", "kills"),
    [
        (VERSIONS[0], "0", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n"),
        (VERSIONS[1], "5000000", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
    ids=["version 2", "version 1"],
)
def test_memory_and_swap_are_set_and_kills_are_read_in_linux_format(
    version: packing.dry_run.cgroups.Version, swap: str, kills: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (version.memory, version.swap, version.kills, "cgroup.procs"):
        (tmp_path / name).touch()
    (tmp_path / version.kills).write_text(kills)
    places: Iterator[tuple[packing.dry_run.cgroups.Version, Path]] = iter([(version, tmp_path)])
    monkeypatch.setattr(packing.dry_run.cgroups, "_find_parents", lambda: places)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix, dir: str(dir))
    monkeypatch.setattr(packing.dry_run.cgroups, "_end_group", lambda group: None)
    with make_group(5 * MB) as group:
        assert group == Group(tmp_path, version) and group.count_kills() == 2
    assert (tmp_path / version.memory).read_text() == "5000000"
    assert (tmp_path / version.swap).read_text() == swap
    assert int((tmp_path / "cgroup.procs").read_text()) > 0, "the process did not join"
