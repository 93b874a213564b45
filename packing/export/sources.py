"""The hash of a graph's inputs; a separate module, because checking an export needs no torch."""

import hashlib
import json

from inference.manifest.records import Model
from inference.manifest.task import Activation
from zoo.onnx_limits import OPSET

FORM = 4  # version of the export; raised when it makes another graph of the same network


def hash_source(model: Model, outputs: int, activation: Activation) -> str:
    """Hash everything that a model's graph depends on."""
    assert model.checkpoint is not None
    network = [model.checkpoint.sha256, model.architecture, model.image_size, model.mean, model.std, outputs]
    parts = [*network, activation, OPSET, FORM]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
