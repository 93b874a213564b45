"""The cores of a container, from files as both versions of cgroups have them."""

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from inference.basics import cores
from inference.basics.cores import count_cores, read_quota

V1 = "12:pids:/docker/c0ffee\n4:cpu,cpuacct:/docker/c0ffee\n1:name=systemd:/docker/c0ffee\n0::/docker/c0ffee\n"
V1_ALONE = "2:cpuacct:/jobs/one\n1:cpu:/jobs/one\n"
V2 = "0::/user.slice/job.scope\n"


def lay_out(folder: Path, lines: str, files: Mapping[str, str]) -> tuple[Path, Path]:
    """Write the process's membership and the files of the mounted cgroups."""
    (folder / "cgroup").mkdir(parents=True)
    for name, content in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(content)
    (folder / "self").write_text(lines)
    return folder / "self", folder / "cgroup"


@pytest.mark.parametrize(
    ("lines", "files", "quota"),
    [
        (V2, {"user.slice/job.scope/cpu.max": "50000 100000\n"}, 0.5),
        (V2, {"user.slice/job.scope/cpu.max": "max 100000\n"}, math.inf),
        (V2, {"user.slice/job.scope/cpu.max": "max 100000\n", "user.slice/cpu.max": "300000 100000\n"}, 3.0),
        (V2, {"user.slice/job.scope/cpu.max": "150000 100000\n", "user.slice/cpu.max": "300000 100000\n"}, 1.5),
        # In a container, the mounted root is its own cgroup, and the path is that of the host.
        (V2, {"cpu.max": "250000 100000\n"}, 2.5),
        (V2, {}, math.inf),
        (V2, {"cpu.max": "many 100000\n"}, math.inf),
        (V2, {"cpu.max": "50000 0\n"}, math.inf),
        (V2, {"cpu.max": "50000\n"}, math.inf),
        # Not above the mount: another cgroup's file.
        (V2, {"../cpu.max": "50000 100000\n"}, math.inf),
        (
            V1,
            {
                "cpu,cpuacct/docker/c0ffee/cpu.cfs_quota_us": "150000\n",
                "cpu,cpuacct/docker/c0ffee/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            1.5,
        ),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "20000\n", "cpu,cpuacct/cpu.cfs_period_us": "10000\n"}, 2.0),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "0\n", "cpu,cpuacct/cpu.cfs_period_us": "10000\n"}, math.inf),
        (V1, {"pids/cpu.cfs_quota_us": "5000\n", "pids/cpu.cfs_period_us": "10000\n"}, math.inf),
        (V1_ALONE, {"cpu/jobs/cpu.cfs_quota_us": "5000\n", "cpu/jobs/cpu.cfs_period_us": "10000\n"}, 0.5),
        (V1_ALONE, {"cpuacct/jobs/cpu.cfs_quota_us": "5000\n", "cpuacct/jobs/cpu.cfs_period_us": "1\n"}, math.inf),
        ("", {"cpu.max": "50000 100000\n"}, math.inf),
    ],
)
def test_the_smallest_quota_of_the_cgroup_and_those_above_it_counts(
    lines: str, files: dict[str, str], quota: float, tmp_path: Path
) -> None:
    assert read_quota(*lay_out(tmp_path / "machine", lines, files)) == quota


def test_a_machine_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert read_quota(tmp_path / "none", tmp_path) == math.inf


@pytest.mark.parametrize(
    ("affinity", "quota", "counted"),
    [(4, math.inf, 4), (1, math.inf, 1), (4, 0.5, 1), (4, 1.5, 2), (4, 2.0, 2), (2, 3.5, 2), (4, 0.0, 1)],
)
def test_a_part_of_a_core_counts_as_one_and_no_more_are_counted_than_the_process_may_use(
    affinity: int, quota: float, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(affinity if process == 0 else 99)))
    monkeypatch.setattr(cores, "read_quota", lambda: quota)
    assert count_cores() == counted


def test_other_systems_have_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(cores, "read_quota", lambda: math.inf)
    for known, counted in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda known=known: known)
        assert count_cores() == counted


def test_the_files_of_linux_are_read() -> None:
    assert (str(cores.MEMBERSHIP), str(cores.MOUNT)) == ("/proc/self/cgroup", "/sys/fs/cgroup")
    assert 1 <= count_cores() <= (os.cpu_count() or 1)
