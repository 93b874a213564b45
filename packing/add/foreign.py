"""Adding an ONNX graph made elsewhere: what it wants, and whether it keeps its scores when it is wrapped."""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import ExportError, OptionError
from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.manifest.records import Manifest
from packing.export.foreign import choose_outputs, predict_foreign, wrap_foreign
from packing.export.foreign_graph import BYTES, Foreign, open_session, read_foreign, run, takes_bytes
from packing.export.graphs.parts import KINDS
from zoo.onnx_limits import PARITY_LIMIT

IMAGES = 3  # run at once; an odd number, so that no fixed batch size of a graph fits by chance
SEED = 0
IMAGENET = "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"
# Nodes after which the values are still the same.
SHAPING = ("Identity", "Cast", "Reshape", "Squeeze", "Flatten", "Unsqueeze")


def normalise_foreign(path: Path, model: Model, has_mean: bool, has_std: bool) -> Model:
    """Return the model with the mean and std that its graph needs.

    Raises OptionError: `has_mean` or `has_std`, whether they were given, does not suit the graph; or ExportError.
    """
    if takes_bytes(path):
        if has_mean or has_std:
            raise OptionError(
                f"{path}: its input is uint8, so that it gets bytes as they are; leave out --mean and --std"
            )
        return dataclasses.replace(model, mean=(0.0,) * model.channels, std=(BYTES,) * model.channels)
    if not (has_mean and has_std):
        raise OptionError(
            f"{path}: --mean and --std: missing; wanted those of its training, which an ONNX graph does not hold "
            f"(ImageNet's: {IMAGENET})"
        )
    return model


def check_foreign(path: Path, model: Model, labels: Labels, manifest: Manifest) -> str:
    """Compare the wrapped graph with the graph itself on random images; return what it is, in one line.

    Raises ExportError in one line: the graph cannot be served, its outputs are no scores, or the scores differ.
    """
    foreign, activation = read_foreign(path, model), manifest.activation_of(model)
    if activation != "identity":
        check_ending(foreign, choose_outputs(foreign, model, labels))
    session = open_session(path, wrap_foreign(foreign, model, labels, activation).SerializeToString())
    batch = np.random.default_rng(SEED).integers(0, 256, (IMAGES, *model.size, 3), dtype=np.uint8)
    wanted = predict_foreign(foreign, model, labels, activation, batch)
    check_scores(path, wanted, manifest.is_bounded(model))
    limit = PARITY_LIMIT * max(1.0, float(np.abs(wanted).max()))

    def measure(images: NDArray[np.uint8], scores: NDArray[np.float32]) -> float:
        (found,) = run(session, path, ["probabilities"], {"image": images})
        return float(np.abs(found - scores).max()) if found.shape == scores.shape else np.inf

    try:
        difference = measure(batch, wanted)
    except ExportError:
        difference = np.inf
    if difference > limit:
        single = measure(batch[:1], wanted[:1])
        if single <= limit:
            size = f"to {foreign.batch}" if foreign.is_fixed else "inside of the graph"
            raise ExportError(f"{path}: its batch size is fixed {size}: export it with a dynamic batch axis")
        raise ExportError(
            f"{path}: its scores change by {min(single, difference):.1e} if it takes images as the kernel has them; "
            f"wanted at most {limit:.0e}; export it with opset 18 and without fp16"
        )
    made = " ".join(filter(None, (foreign.proto.producer_name, foreign.proto.producer_version)))
    return f"ONNX graph{made and f' of {made}'}, opset {foreign.opset}, {model.layout}, parity {difference:.1e}"


def check_ending(foreign: Foreign, outputs: tuple[str, ...]) -> None:
    """Raise ExportError if the graph ends in an activation itself, which would be applied twice."""
    makers = {output: node for node in foreign.proto.graph.node for output in node.output}
    for output in outputs:
        node = makers.get(output)
        while node is not None and node.op_type in SHAPING:
            node = makers.get(node.input[0])
        if node is not None and node.op_type in KINDS.values():
            raise ExportError(
                f"{foreign.path}: its output `{output}` ends in {node.op_type}, so that it is a score already; "
                "give --activation none"
            )


def check_scores(path: Path, scores: NDArray[np.float32], bounded: bool) -> None:
    """Raise ExportError if scores are NaN, or `bounded` and no probabilities."""
    if not np.isfinite(scores).all():
        raise ExportError(f"{path}: returns NaN or infinity for a random image; choose another checkpoint")
    if bounded and (scores.min() < 0 or scores.max() > 1):
        raise ExportError(
            f"{path}: its scores are from {scores.min():.3g} to {scores.max():.3g}; wanted probabilities; "
            "give --activation sigmoid or softmax"
        )
