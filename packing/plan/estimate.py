"""Estimates of the seconds per image of a network and of the decoder, from work and rates. Pure functions.

Multiply-adds alone predict badly: a depthwise convolution has few and is slow, because it uses each value that it reads
only a few times. The time of an image is therefore the time of its multiply-adds plus the time to read and write the
bytes of its layers: the two ceilings of the roofline model (Williams, Waterman and Patterson, 2009), added instead of
the larger one, because layers of both kinds alternate. A batch shares the weights, which add little. Made for
convolutional networks: a network with layer norms and GELU was estimated a third too fast, the demo's tiny networks two
to four times too fast.
"""

import math
from collections.abc import Iterable

import numpy as np

from inference.images.geometry import Geometry
from packing.accelerators import Rates
from packing.plan.work import Work

ESTIMATE_BATCH = 32  # images per read of the weights
PRECISION_BYTES = {"fp32": 1.0, "fp16": 0.5}  # relative to float32
DECODING_CORES = 2  # Kaggle's four virtual CPUs are two cores
LOAD_SECONDS = 1.3  # per session: the longest measured
# Measured with Pillow on one core: reading a PNG of 400x300 px, and resizing it to a square of each side in px.
READ_SECONDS = 4.3e-3
SIDES = (224, 320, 416)
RESIZE_SECONDS = {"bilinear": (1.2e-3, 1.5e-3, 2.2e-3), "bicubic": (2.4e-3, 2.9e-3, 3.9e-3)}


def estimate_seconds(work: Work, rates: Rates, precision: str, batch: int = ESTIMATE_BATCH) -> float:
    """Return the seconds of one view of one image on one device; `batch`: images per read of the weights."""
    moved = (work.moved + work.weights / batch) * PRECISION_BYTES[precision]
    return (2 * work.multiply_adds / (rates.tflops * 1e12) + moved / (rates.bandwidth * 1e9)) / rates.efficiency


def estimate_decoding(geometries: Iterable[Geometry], cores: int = DECODING_CORES) -> float:
    """Return the seconds to read one image and resize it to every geometry, divided by the cores.

    Interpolates between the measured sizes by the number of pixels; beyond them, uses the nearest.
    """
    seconds = READ_SECONDS
    for geometry in set(geometries):
        measured = RESIZE_SECONDS[geometry.interpolation]
        seconds += float(np.interp(math.prod(geometry.shape), [side**2 for side in SIDES], measured))
    return seconds / cores
