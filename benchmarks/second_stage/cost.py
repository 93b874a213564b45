"""The second stage at iMet's size: seconds and memory for 38,801 images, 1103 labels and 14 members.

python -m benchmarks.second_stage.cost            blend, CNNs, expected F2 and the submission; then the same with trees
"""

import argparse
import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.tables import read_columns
from inference.ensemble.second_stage import choose_answers
from inference.ensemble.stackers import open_stage
from inference.manifest.decision import Calibration, Decision, GroupDecision
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.labels import Labels
from inference.manifest.model import ALL, FileEntry, Model
from inference.manifest.records import BLEND, Ensemble, LabelsEntry, Manifest
from inference.task.answers import Answer
from inference.task.sample import Sample
from inference.task.submission import write_submission
from training.second_stage.fitted import APART, TOGETHER, TREES, Layers, take_group
from training.second_stage.member_scores import MemberScores
from training.second_stage.stackers.cnn import CnnSettings, fit_cnn
from training.second_stage.stackers.export_stackers import FOLDER, export_layers, name_parts
from training.second_stage.stackers.trees import fit_pairs

IMAGES, MEMBERS, CULTURES, TAGS = 38_801, 14, 398, 705
FITTED = 1500  # images to fit the stackers to; enough for a realistic cost, not for a realistic quality
BRIEF = CnnSettings(epochs=1, updates=1)  # the cost of a CNN does not depend on its weights
ROWS = 1000
CHUNK = 32  # images; the kernel selects labels chunk by chunk
TRUE_LABELS = 3.17  # per image of iMet 2019
LABELS = Labels(
    tuple(range(CULTURES + TAGS)),
    tuple(f"{'culture' if label < CULTURES else 'tag'}::{label}" for label in range(CULTURES + TAGS)),
    {"culture": tuple(range(CULTURES)), "tag": tuple(range(CULTURES, CULTURES + TAGS))},
)
NAMES = tuple(f"member{place}" for place in range(MEMBERS))


def draw_images(images: int, seed: int) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float16]]]:
    """Yield truth (rows, labels) and scores (rows, members, labels) in parts: rare labels, correlated members."""
    random = np.random.default_rng(seed)
    frequency = 1 / (1 + np.arange(CULTURES + TAGS)) ** 0.8
    frequency = np.random.default_rng(0).permutation(np.minimum(frequency * TRUE_LABELS / frequency.sum(), 0.5))
    base = np.log(frequency / (1 - frequency))
    for start in range(0, images, ROWS):
        rows = min(ROWS, images - start)
        truth = random.random((rows, len(frequency))) < frequency
        shared = base + 4 * truth + random.normal(0, 1, truth.shape)
        own = random.normal(0, 0.7, (rows, MEMBERS, len(frequency)))
        yield truth, (1 / (1 + np.exp(-(shared[:, None] + own)))).astype(np.float16)


def write_store(folder: Path) -> None:
    """Write MEMBER.npy of each member, float16 (images, labels), like a kernel."""
    arrays = [
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, (IMAGES, CULTURES + TAGS)) for name in NAMES
    ]
    row = 0
    for _, scores in draw_images(IMAGES, seed=1):
        for place, array in enumerate(arrays):
            array[row : row + len(scores)] = scores[:, place]
        row += len(scores)
    for array in arrays:
        array.flush()


def fit_stackers(folder: Path) -> Manifest:
    """Fit every stacker to random data; return a manifest of 14 members."""
    parts = list(draw_images(FITTED, seed=2))
    truth, scores = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    traits = np.zeros((FITTED, 4), np.float32)
    covers = (tuple(LABELS.groups),) * MEMBERS
    evidence = MemberScores(NAMES, covers, np.arange(FITTED), scores, truth, traits)
    weights = {group: dict.fromkeys(NAMES, 1 / MEMBERS) for group in LABELS.groups}
    cnns = {
        group: fit_cnn(take_group(evidence, LABELS, group), truth[:, LABELS.columns(group)], BRIEF, seed=0, title=group)
        for group in (*LABELS.groups, ALL)
    }
    layers = Layers(weights, cnns, fit_pairs(evidence, LABELS, weights, seed=0))
    mix = {group: {BLEND: 0.25, APART: 0.25, TOGETHER: 0.25, TREES: 0.25} for group in LABELS.groups}
    stackers = export_layers(layers, mix, evidence, LABELS, folder / FOLDER)
    models = tuple(
        Model(name, "resnet18", ALL, 224, (0.5,) * 3, (0.5,) * 3, "bicubic", checkpoint=None) for name in NAMES
    )
    rule = GroupDecision(0.1, 0, 10)
    unused = FileEntry("labels.csv", "0" * 64)
    return Manifest(
        labels=LabelsEntry(unused.file, unused.sha256, {"culture": "culture::", "tag": "tag::"}),
        models=models,
        ensemble=Ensemble({group: dict.fromkeys(NAMES, 1.0) for group in LABELS.groups}, stackers, name_parts(mix)),
        decision=Decision(
            dict.fromkeys(LABELS.groups, rule),
            prior={"culture": (0,), "tag": ()},
            rule="expected_f",
            calibration=dict.fromkeys(LABELS.groups, Calibration((0.0, 1.0), (0.0, 1.0))),
        ),
    )


def leave_trees_out(manifest: Manifest) -> Manifest:
    """Return the manifest without the tree stacker."""
    mix = {
        group: {name: one for name, one in given.items() if name != TREES}
        for group, given in manifest.ensemble.mix.items()
    }
    return replace(manifest, ensemble=replace(manifest.ensemble, mix=mix))


class Memory:
    """Peak anonymous memory of this process inside the block, in bytes, without mapped files."""

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, 1024 * int(status.partition("RssAnon:")[2].split()[0]))


def measure(folder: Path, manifest: Manifest, ids: list[str]) -> dict[str, float]:
    """Measure seconds and peak MB from the memory-mapped scores to submission.csv."""
    with Memory() as memory:
        before = time.perf_counter()
        scores = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES}
        stage = open_stage(manifest, LABELS, folder)
        answers: list[Answer] = []
        for start in range(0, IMAGES, CHUNK):
            part = {name: array[start : start + CHUNK] for name, array in scores.items()}
            answers += choose_answers(stage, part, np.zeros((len(part[NAMES[0]]), 4), np.float32))
        task = manifest.task
        sample = Sample((task.id_column, task.submission.column), tuple(ids))
        write_submission(folder / "submission.csv", sample, answers, LABELS, task)
        seconds = time.perf_counter() - before
    return {"seconds": round(seconds, 1), "peak_mb": round(memory.peak / 1e6)}


def read_ids() -> list[str]:
    """Return the ids of iMet's stage-2 test if their file exists, else invented ids."""
    path = Path("build/benchmarks/sample_submission.csv.gz")
    if not path.exists():
        return [f"{place:016x}" for place in range(IMAGES)]
    plain = Path("build/benchmarks/sample_submission.csv")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    return [image for (image,) in read_columns(plain, ("id",))]


def measure_apart(folder: Path, manifest: Manifest) -> dict[str, float]:
    """Measure in a separate process, because the memory of fitting must not count."""
    write_manifest(manifest, folder / MANIFEST_NAME)
    command = [sys.executable, "-m", "benchmarks.second_stage.cost", "--measure"]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def main() -> int:
    """Print the figures and write them to build/benchmarks/second_stage.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="only measure the files of an earlier run")
    given = parser.parse_args()
    folder = Path("build/benchmarks/second_stage")
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    if given.measure:
        print(json.dumps(measure(folder, read_manifest(folder / MANIFEST_NAME), read_ids())))
        return 0
    write_store(folder)
    manifest = fit_stackers(folder)
    (trees,) = [stacker for stacker in manifest.ensemble.stackers if stacker.name == TREES]
    found = {
        "images": IMAGES,
        "top": trees.top,
        "without trees": measure_apart(folder, leave_trees_out(manifest)),
        "with trees": measure_apart(folder, manifest),
    }
    Path("build/benchmarks/second_stage.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
