"""CPU cores that this process may use: its affinity, and the CPU quota of its container."""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")  # cgroups(7): lines of `hierarchy:controllers:path`
MOUNT = Path("/sys/fs/cgroup")


def count_cores() -> int:
    """Return the number of threads that can run at once, at least 1; a quota of one and a half CPUs counts as 2."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, read_quota())))


def read_quota(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> float:
    """Return the CPU quota of this process's cgroup and those above it, in CPUs; infinity without one.

    `mount`: folder of the cgroup file system, version 2, or of the controllers of version 1.
    """
    return min((_read_folder(folder) for folder in list_cgroups("cpu", membership, mount)), default=math.inf)


def list_cgroups(controller: str, membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and those above it, in which `controller` may have a limit."""
    try:
        lines = membership.read_text(errors="replace").splitlines()
    except OSError:  # not Linux, or no /proc
        return
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = mount / controllers  # version 2 has no controllers in its line
        inner = root / path.strip("/")
        # In a container the path may be that of the host; then only the mounted root exists.
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def _read_folder(folder: Path) -> float:
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        # Without a limit, version 2 has `max` and version 1 has -1.
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no quota here, or a form that this does not know
        return math.inf
