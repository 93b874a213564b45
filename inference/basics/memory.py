"""Memory that this process may still allocate under its resource limits."""

import ctypes
import math
import resource
from contextlib import suppress
from pathlib import Path

NO_MEMORY = "out of memory"  # part of the reason of every image that was not read for this cause
# With less, the C library may end the process when it cannot allocate the data of a new thread.
LEAST_FREE = 32_000_000  # bytes
M_ARENA_MAX = -8  # malloc.h
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
