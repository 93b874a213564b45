"""Estimate of the peak memory of a run on the CPU, where every model is loaded at the same time.

ONNX Runtime keeps a copy of the weights for its kernels beside that of the file, and each model keeps the memory of its
largest batch. benchmarks/memory.py compares the estimate with runs of the packed script.
"""

import math
from collections.abc import Iterable

from inference.ensemble.kept_scores import measure_scores
from inference.images.geometry import list_geometries
from inference.images.read_ahead import CHUNKS_AHEAD
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from packing.plan.work import Work

# Measured on two cores with ONNX Runtime 1.32 (benchmarks/memory.py).
PROCESS = 150e6  # bytes of Python and its packages, and of decoding
PER_MODEL = 30e6  # bytes, whatever its size
WEIGHT_COPIES = 2.4
ACTIVATION_COPIES = 2.0  # of the widest operation's inputs and outputs, for each input of a batch


def estimate_memory(manifest: Manifest, labels: Labels, works: Iterable[Work], images: int) -> float:
    """Return the bytes at the peak of a run of all models; `works`: of each.

    Covers images whose files are decoded in a few MB each, as most are; those of tens of megapixels add their own size.
    """
    inputs = manifest.runtime.batch_size  # a batch counts images times views
    models = sum(PER_MODEL + WEIGHT_COPIES * work.weights + ACTIVATION_COPIES * inputs * work.widest for work in works)
    # The chunks that wait, the one that runs and the one that is read.
    geometries = {geometry for model in manifest.models for geometry in list_geometries(model)}
    squares = sum(3 * math.prod(geometry.shape) for geometry in geometries)
    return PROCESS + models + (CHUNKS_AHEAD + 2) * inputs * squares + measure_scores(manifest, labels, images)
