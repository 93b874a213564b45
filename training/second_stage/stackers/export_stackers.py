"""Export of the stackers to ONNX, with a check of parity."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from inference.basics.errors import ExportError
from inference.basics.files import hash_file, replace_file
from inference.ensemble.blend import Scores, fill_members
from inference.ensemble.pairs import compute_features, find_pairs, name_features
from inference.manifest.labels import Labels
from inference.manifest.model import ALL, FileEntry
from inference.manifest.records import BLEND, Stacker
from training.second_stage.fitted import (
    APART,
    TREES,
    Layers,
    Weights,
    find_readable,
    has_features,
    list_stacked,
    take_group,
)
from training.second_stage.member_scores import MemberScores
from training.second_stage.stackers.cnn import CnnStacker, predict_cnn
from training.second_stage.stackers.tree_graph import export_trees
from training.second_stage.stackers.trees import order_members
from zoo.onnx_export import trace_module
from zoo.onnx_limits import PARITY_LIMIT

MOST_AT_ONCE = 65536
FOLDER = "second_stage"  # beside the manifest
PARITY_IMAGES = 256


def export_cnn(stacker: CnnStacker, path: Path, examples: Scores) -> float:
    """Write the ONNX graph from `scores` to `probabilities`; return its largest difference to torch.

    `examples`: real scores, (images, members, labels), for the comparison. Raises ExportError and writes no file if
    they differ by more than 1e-4; TrainingError as `predict_cnn`.
    """
    expected = predict_cnn(stacker, examples)
    example = torch.full((2, stacker.members, stacker.labels), 0.5)
    graph = trace_module(stacker, example, "scores", "probabilities", MOST_AT_ONCE)
    with replace_file(path) as temporary:
        onnx.save(graph, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, {"scores": fill_members(examples.astype(np.float32))})
        parity = float(np.abs(answer - expected).max(initial=0))
        if not parity <= PARITY_LIMIT:
            raise ExportError(
                f"{path.name}: found a difference of {parity:.1e} to torch on {len(examples)} images; "
                f"wanted at most {PARITY_LIMIT:.0e}"
            )
    return parity


def name_parts(mix: Weights) -> dict[str, dict[str, float]]:
    """Rename the parts of the mix to stackers: each group has its own CNN."""
    return {
        group: {(f"cnn_{group}" if name == APART else name): weight for name, weight in weights.items()}
        for group, weights in mix.items()
    }


def export_layers(
    layers: Layers, mix: Weights, members: MemberScores, labels: Labels, folder: Path
) -> tuple[Stacker, ...]:
    """Write NAME.onnx to `folder` for each stacker in the mix; return their manifest entries, with files in FOLDER.

    Raises ExportError or TrainingError: the exported stacker differs from the fitted one.
    """
    used = {name for weights in name_parts(mix).values() for name in weights} - {BLEND}
    known = find_readable(members, labels)
    some = members.take(np.flatnonzero(known)[:PARITY_IMAGES])
    stackers = []
    for group, cnn in layers.cnns.items():
        name = f"cnn_{group}"
        if name in used:
            path = folder / f"{name}.onnx"
            parity = export_cnn(cnn, path, take_group(some, labels, group))
            names = tuple(members.names[place] for place in list_stacked(members, labels, group))
            entry = FileEntry(f"{FOLDER}/{path.name}", hash_file(path))
            stackers.append(Stacker(name, "cnn", group, names, entry, parity))
    if layers.trees and TREES in used:
        path = folder / f"{TREES}.onnx"
        trees = layers.trees
        read = tuple(name for name, _ in trees.features)
        some = members.take(np.flatnonzero(known & has_features(members, read))[:PARITY_IMAGES])
        ordered = fill_members(order_members(some, trees.members))
        rows, columns = find_pairs(ordered, trees.top, trees.counts)
        examples = compute_features(
            ordered, rows, columns, trees.counts, np.array(labels.owners), some.traits, some.join_features(read)
        )
        names = name_features(trees.members, trees.features)
        parity = export_trees(trees.booster, path, trees.counts, names, examples, exclusive=trees.exclusive)
        entry = FileEntry(f"{FOLDER}/{path.name}", hash_file(path))
        stackers.append(Stacker(TREES, "trees", ALL, trees.members, entry, parity, trees.top, read))
    return tuple(stackers)
