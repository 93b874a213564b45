"""The fitted stackers as the kernel takes them: ONNX files, and their entries in the manifest."""

from pathlib import Path

import numpy as np

from inference.files import hash_file
from inference.labels import Labels
from inference.manifest import ALL, BLEND, FileEntry, Stacker
from inference.members import fill_members
from inference.pairs import compute_features, find_pairs, name_features
from training.second_stage.cnn_export import export_cnn
from training.second_stage.evidence import Evidence
from training.second_stage.layers import APART, TREES, Layers, list_places, take_group
from training.second_stage.nested import Weights
from training.second_stage.pair_stacker import order_members
from training.second_stage.trees import export_trees

FOLDER = "second_stage"  # beside the manifest
# Images that an export is compared with its original on.
PARITY_IMAGES = 256


def name_parts(mix: Weights) -> dict[str, dict[str, float]]:
    """The mix by the names of stackers: of the CNNs apart, each group has its own."""
    return {
        group: {(f"cnn_{group}" if name == APART else name): weight for name, weight in weights.items()}
        for group, weights in mix.items()
    }


def export_layers(
    layers: Layers, mix: Weights, evidence: Evidence, labels: Labels, folder: Path
) -> tuple[Stacker, ...]:
    """Write FOLDER/NAME.onnx of each stacker that the mix uses; their entries, as files of FOLDER beside the manifest.

    Raises TrainingError where an export is not what it was made from.
    """
    used = {name for weights in name_parts(mix).values() for name in weights} - {BLEND}
    some = evidence.take(np.arange(min(PARITY_IMAGES, len(evidence.rows))))
    stackers = []
    for group, cnn in layers.cnns.items():
        name = f"cnn_{group}"
        if name in used:
            path = folder / f"{name}.onnx"
            parity = export_cnn(cnn, path, take_group(some, labels, group))
            members = tuple(evidence.members[place] for place in list_places(evidence, labels, group))
            stackers.append(
                Stacker(name, "cnn", group, members, FileEntry(f"{FOLDER}/{path.name}", hash_file(path)), parity)
            )
    if layers.trees and TREES in used:
        path = folder / f"{TREES}.onnx"
        trees = layers.trees
        ordered = fill_members(order_members(some, trees.members))
        rows, columns = find_pairs(ordered, trees.top, trees.counts)
        examples = compute_features(ordered, rows, columns, trees.counts, np.array(labels.owners), some.traits)
        parity = export_trees(trees.booster, path, trees.counts, name_features(trees.members), examples)
        stackers.append(
            Stacker(
                TREES,
                "trees",
                ALL,
                trees.members,
                FileEntry(f"{FOLDER}/{path.name}", hash_file(path)),
                parity,
                trees.top,
            )
        )
    return tuple(stackers)
