"""The hash of a graph's inputs; a separate module, because checking an export needs no torch."""

import dataclasses
import hashlib
import json

from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.manifest.records import Manifest
from packing.export.graphs.form import read_form
from zoo.onnx_limits import OPSET

FORM = 5  # version of the export; raised when it makes another graph of the same network


def hash_source(manifest: Manifest, model: Model, labels: Labels) -> str:
    """Hash everything that a model's fp32 graph depends on; of a ready-made graph, return what its entry declares."""
    if model.checkpoint is None:
        return model.onnx["fp32"].source if "fp32" in model.onnx else ""
    factory = None if model.factory is None else dataclasses.asdict(model.factory)
    columns = labels.columns(model.group)
    # The order of the labels and groups decides how `label_order` and the heads of a network are joined.
    order = [[labels.ids[column] for column in columns], [list(own) for own in labels.groups.values()]]
    network = [model.checkpoint.sha256, model.ema, model.architecture, factory, model.layout, model.label_order]
    parts = [*network, order if columns else [], dataclasses.asdict(read_form(manifest, model, labels)), OPSET, FORM]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
