"""What a model's graph is made from; apart from the export itself, since to look at an export needs no torch."""

import hashlib
import json

from inference.manifest.records import Model
from zoo.onnx_limits import OPSET

FORM = 3  # raised where the export begins to make another graph of the same network


def hash_source(model: Model, outputs: int) -> str:
    """Hash of all that a model's graph is made from."""
    assert model.checkpoint is not None
    parts = [model.checkpoint.sha256, model.architecture, model.image_size, model.mean, model.std, outputs, OPSET, FORM]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
