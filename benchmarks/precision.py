"""Speed of int8 on a CPU, and loss of the metric with int8 and fp16.

python -m benchmarks.precision speed                            resnet34 and SE-ResNeXt50, random weights, 320 px
python -m benchmarks.precision loss --zoo DIR --data DIR        models of fold 0, on their held-out images
"""

import argparse
import csv
import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.plan import LABELS, export_random
from inference.ensemble.blend import blend
from inference.ensemble.decide import decide
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.labels import read_labels
from inference.manifest.records import Ensemble, Manifest, remove_stackers
from inference.manifest.values import Precision
from inference.models.precision import compare_sessions
from inference.models.sessions import ModelSession
from packing.export.example_images import choose_geometry, read_arrays
from packing.export.export_zoo import EXAMPLES, export_zoo
from packing.export.graphs.int8 import KEPT, quantize_graph
from zoo.metrics.scoring import find_scoring
from zoo.tables.train_table import read_table

ARCHITECTURES = ("resnet34", "legacy_seresnext50_32x4d")
SIZE, BATCH = 320, 8
FOLD = 0
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def measure_speed(out: Path, rounds: int) -> None:
    """Print images/s of both architectures in fp32 and int8, alternating, the fastest of `rounds`."""
    random = np.random.default_rng(0)
    batches = [random.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8) for _ in range(2)]
    for architecture in ARCHITECTURES:
        torch.manual_seed(0)
        fp32 = export_random(f"{architecture}@{SIZE}", out)
        for kept in KEPT:
            int8 = out / f"{architecture}.int8.{kept}.onnx"
            if not int8.exists():
                quantize_graph(fp32, int8, batches, kept)
            sessions = [ModelSession(architecture, path, LABELS) for path in (fp32, int8)]
            trials = [compare_sessions(sessions[0], sessions[1], batches[0]) for _ in range(rounds)]
            whole, small = min(one.first for one in trials), min(one.rival for one in trials)
            print(f"| {architecture} | {kept} | {1 / whole:.2f} | {1 / small:.2f} | {whole / small:.2f} |", flush=True)


def measure_loss(zoo: Path, data: Path, out: Path, judged: int) -> None:
    """Export the models of fold 0; print the metric of each and of their blend on other held-out images."""
    manifest = read_manifest(zoo / MANIFEST_NAME)
    weights = manifest.ensemble.weights
    models = tuple(
        dataclasses.replace(model, out_of_fold=None)
        for model in manifest.models
        if model.fold == FOLD and any(weights[group].get(model.name) for group in weights)
    )
    names = {model.name for model in models}
    own = {group: {name: weight for name, weight in given.items() if name in names} for group, given in weights.items()}
    alone = dataclasses.replace(
        remove_stackers(manifest), models=models, ensemble=Ensemble(own), runtime=manifest.runtime
    )
    home, held = out / "zoo", out / "held"
    for folder in (home, held):
        folder.mkdir(parents=True, exist_ok=True)
    for file in (manifest.labels.file, *(model.checkpoint.file for model in models if model.checkpoint)):
        shutil.copyfile(zoo / file, home / file)
    write_manifest(alone, home / MANIFEST_NAME)
    with (zoo / "folds.csv").open(newline="") as file:
        ids = sorted(row["id"] for row in csv.DictReader(file) if int(row["fold"]) == FOLD)
    for name in ids[:EXAMPLES]:
        if not (held / f"{name}.png").is_symlink():
            (held / f"{name}.png").symlink_to(data.resolve() / "train" / f"{name}.png")
    exported = export_zoo(home / MANIFEST_NAME, out / "onnx", held, PRECISIONS, data / "train.csv")
    labels = read_labels(home / manifest.labels.file, manifest.labels.groups)
    rest, scoring = ids[EXAMPLES : EXAMPLES + judged], find_scoring(manifest.task)
    true = read_table(data / "train.csv", labels, manifest.task).order_targets(rest)
    paths = [data / "train" / f"{name}.png" for name in rest]

    def score(manifest: Manifest, scores: dict[str, NDArray[np.floating[Any]]]) -> float:
        return scoring.score(decide(blend(scores, manifest, labels), labels, manifest.decision), true)

    answers: dict[Precision, dict[str, NDArray[np.floating[Any]]]] = {precision: {} for precision in PRECISIONS}
    for model in models:
        geometry = choose_geometry(model)
        images = read_arrays(paths, len(paths), [geometry])[2][geometry]
        batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        entries = next(one.onnx for one in exported.models if one.name == model.name)
        for precision in PRECISIONS:
            path, outputs = out / "onnx" / entries[precision].file, len(labels.columns(model.group))
            bounded = manifest.is_bounded(model)
            session = ModelSession(model.name, path, outputs, 0, 0, bounded, model.cuts, model.merge)
            scores = np.concatenate([session.predict(batch) for batch in batches])
            answers[precision][model.name] = scores.astype(manifest.task.score_dtype)
        single = {group: {model.name: 1.0} for group in exported.labels.groups}
        lone = dataclasses.replace(exported, models=(model,), ensemble=Ensemble(single))
        found = {precision: score(lone, answers[precision]) for precision in PRECISIONS}
        losses = [scoring.find_gain(found["fp32"], found[precision]) for precision in PRECISIONS[1:]]
        entry = [f"{entries[precision].parity:.3f}, {entries[precision].flips:.1%}" for precision in PRECISIONS[1:]]
        print(f"| {model.name} | {found['fp32']:.4f} | {entry[0]} | {losses[0]:+.4f} | {entry[1]} | {losses[1]:+.4f} |")
    found = {precision: score(exported, answers[precision]) for precision in PRECISIONS}
    losses = [scoring.find_gain(found["fp32"], found[precision]) for precision in PRECISIONS[1:]]
    print(f"| blend | {found['fp32']:.4f} | | {losses[0]:+.4f} | | {losses[1]:+.4f} |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description="Figures of fp16 and int8.")
    parser.add_argument("what", choices=("speed", "loss"))
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/precision"))
    parser.add_argument("--rounds", type=int, default=4, help="for speed: the fastest of N counts (4)")
    parser.add_argument("--zoo", type=Path, help="for loss: folder of the models")
    parser.add_argument("--data", type=Path, help="for loss: folder of train.csv and train/")
    parser.add_argument(
        "--judged", type=int, default=2000, help="for loss: held-out images in addition to those of the export (2000)"
    )
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.what == "speed":
        measure_speed(given.out, given.rounds)
    else:
        measure_loss(given.zoo, given.data, given.out, given.judged)
    return 0


if __name__ == "__main__":
    sys.exit(main())
