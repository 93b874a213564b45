"""How much memory this process may still take under the limits that it was started with."""

import math
import resource
from pathlib import Path

NO_MEMORY = "memory did not suffice"  # in the reason of every image that was refused for want of it
# With less, a thread that just starts may find no room for what is its own, and the C library ends the process.
LEAST_FREE = 32_000_000  # bytes
STATM = Path("/proc/self/statm")  # proc(5): pages of address space, resident, shared, text, unused, data and stack


def measure_free() -> float:
    """Bytes that RLIMIT_AS and RLIMIT_DATA leave, infinity where neither is set or the system does not tell the use.

    Limits of containers are not seen here: who passes those is killed, and finds no allocation refused before.
    """
    limits = [resource.getrlimit(one)[0] for one in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    if limits == [resource.RLIM_INFINITY] * 2:
        return math.inf
    try:
        pages = [int(word) for word in STATM.read_text(encoding="ascii").split()]
    except OSError:
        return math.inf
    used = [count * resource.getpagesize() for count in (pages[0], pages[5])]
    return min(
        max(limit - taken, 0) if limit != resource.RLIM_INFINITY else math.inf
        for limit, taken in zip(limits, used, strict=True)
    )


def require_free() -> None:
    """Raises MemoryError where too little is left to load or run a model."""
    free = measure_free()
    if free < LEAST_FREE:
        raise MemoryError(f"{free / 1e6:.0f} MB are left; wanted {LEAST_FREE / 1e6:.0f} to load or run a model")
