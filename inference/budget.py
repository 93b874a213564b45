"""The deadline: whether another chunk still fits. Pure functions; whoever calls them owns the clock."""

from collections.abc import Sequence

RECENT_CHUNKS = 3
# A chunk may be slower than the slowest of the last ones: other work on the machine, larger images.
CHUNK_MARGIN = 1.5
# Deciding and writing were measured on a part, or on shorter rows.
RESERVE_MARGIN = 2.0
SMALLEST_RESERVE = 1.0  # seconds, for what is not measured: leaving the interpreter, above all


def fits_chunk(seconds_left: float, chunk_seconds: Sequence[float], reserve: float) -> bool:
    """Whether a chunk as slow as the slowest of the last few, with a margin, leaves `reserve` seconds; the first does.

    `chunk_seconds`: of each chunk so far.
    """
    if not chunk_seconds:
        return True
    return CHUNK_MARGIN * max(chunk_seconds[-RECENT_CHUNKS:]) + reserve <= seconds_left


def estimate_reserve(decide_seconds: float, decided: int, images: int, write_seconds: float) -> float:
    """Seconds to keep for the end: deciding `images` images at the rate of `decided` ones, writing, and checking.

    `write_seconds`: what writing the prior's submission took.
    """
    return SMALLEST_RESERVE + RESERVE_MARGIN * (decide_seconds / decided * images + 2 * write_seconds)
