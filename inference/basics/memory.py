"""Memory that this process may still allocate under its resource limits."""

import math
import resource
from pathlib import Path

NO_MEMORY = "out of memory"  # part of the reason of every image that was not read for this cause
# With less, the C library may end the process when it cannot allocate the data of a new thread.
LEAST_FREE = 32_000_000  # bytes
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


def require_free() -> None:
    """Raise MemoryError if less than LEAST_FREE is left to load or run a model."""
    free = measure_free()
    if free < LEAST_FREE:
        raise MemoryError(f"found {free / 1e6:.0f} MB free; wanted {LEAST_FREE / 1e6:.0f} MB to load or run a model")
