"""How long a network needs for one image, and the decoder: from its work and the machine's rates. Pure functions.

Multiply-adds alone will not do: a depthwise convolution has few and is slow, as each number that it reads is used
little. So an image costs the time of its multiply-adds and, beside it, the time of the bytes that its layers read and
write: the two ceilings of the roofline model (Williams, Waterman and Patterson, 2009), added up rather than the larger
of both, as layers of either kind take turns. Weights are shared by a batch and add little. Made for convolutional
networks: one with layer norms and GELU was predicted a third too fast, the demo's tiny ones two to four times.
"""

from collections.abc import Iterable

import numpy as np

from inference.images.geometry import Geometry
from packing.accelerators import Rates
from packing.plan.work import Work

ESTIMATE_BATCH = 32  # images that read the weights together
PRECISION_BYTES = {"fp32": 1.0, "fp16": 0.5}  # of float32's
DECODING_CORES = 2  # of Kaggle's machines: its four virtual ones share them
LOAD_SECONDS = 1.3  # of one session: the longest of those measured
# Measured with Pillow on one core: a PNG of 400x300, and from it a square of so many px.
READ_SECONDS = 4.3e-3
SIDES = (224, 320, 416)
RESIZE_SECONDS = {"bilinear": (1.2e-3, 1.5e-3, 2.2e-3), "bicubic": (2.4e-3, 2.9e-3, 3.9e-3)}


def estimate_seconds(work: Work, rates: Rates, precision: str, batch: int = ESTIMATE_BATCH) -> float:
    """Seconds of one view of one image on one device; `batch`: images that read the weights together."""
    moved = (work.moved + work.weights / batch) * PRECISION_BYTES[precision]
    return (2 * work.multiply_adds / (rates.tflops * 1e12) + moved / (rates.bandwidth * 1e9)) / rates.efficiency


def estimate_decoding(geometries: Iterable[Geometry], cores: int = DECODING_CORES) -> float:
    """Seconds of one image until it is there in every geometry, by so many cores.

    Between the sizes that were measured by the number of pixels, beyond them as the nearest.
    """
    seconds = READ_SECONDS
    for geometry in set(geometries):
        measured = RESIZE_SECONDS[geometry.interpolation]
        seconds += float(np.interp(geometry.size**2, [side**2 for side in SIDES], measured))
    return seconds / cores
