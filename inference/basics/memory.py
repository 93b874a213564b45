"""Memory that this process may still allocate: under its resource limits, on the machine, in its container."""

import ctypes
import math
import resource
from contextlib import suppress
from pathlib import Path

from inference.basics.cores import list_cgroups

NO_MEMORY = "out of memory"  # part of the reason of every image that was not read for this cause
# With less, the C library may end the process when it cannot allocate the data of a new thread.
LEAST_FREE = 32_000_000  # bytes
M_ARENA_MAX = -8  # malloc.h
MEMINFO = Path("/proc/meminfo")
STATM = Path("/proc/self/statm")  # proc(5): pages of address space, resident, shared, text, unused, data and stack


def measure_free() -> float:
    """Return the bytes left under RLIMIT_AS and RLIMIT_DATA; infinity without a limit or without /proc/self/statm.

    Ignores limits of containers: exceeding one kills the process, and no allocation fails before.
    """
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    if limits == [resource.RLIM_INFINITY] * 2:
        return math.inf
    try:
        pages = [int(word) for word in STATM.read_text(encoding="ascii").split()]
    except OSError:
        return math.inf
    used = [count * resource.getpagesize() for count in (pages[0], pages[5])]
    return min(
        max(limit - use, 0) if limit != resource.RLIM_INFINITY else math.inf
        for limit, use in zip(limits, used, strict=True)
    )


def measure_available(meminfo: Path = MEMINFO) -> float:
    """Return the bytes that the process may still use: the least of its limits, its cgroups' and the machine's memory.

    Memory of the page cache counts as free, as Linux gives it up.
    """
    found = [measure_free(), *map(_measure_cgroup, list_cgroups("memory"))]
    with suppress(OSError, ValueError, IndexError):
        found += [1024.0 * int(line.split()[1]) for line in meminfo.read_text().splitlines() if "MemAvailable" in line]
    return min(found)


def _measure_cgroup(folder: Path) -> float:
    # Names in version 2 of cgroups, and in version 1, whose limit is a huge number if there is none.
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        with suppress(OSError, ValueError):  # no limit here, or "max"
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used = int((folder / usage).read_text()) - int(stat.get("inactive_file", 0))
            return max(int((folder / limit).read_text()) - used, 0)
    return math.inf


def require_free(needed: float = 0) -> None:
    """Raise MemoryError if less than LEAST_FREE and the bytes `needed` is left to load or run a model.

    ONNX Runtime may end the process when one of its small allocations fails, so the large ones are checked before.
    """
    free, wanted = measure_free(), LEAST_FREE + needed
    if free < wanted:
        raise MemoryError(f"found {free / 1e6:.0f} MB free; wanted {wanted / 1e6:.0f} MB to load or run a model")


def share_arena() -> None:
    """Let new threads allocate from the memory of those before, if this process has a limit.

    By default glibc reserves 64 MB of address space for each thread, and 128 MB while it does so.
    """
    if measure_free() < math.inf:
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
