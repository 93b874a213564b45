"""Zoos of several tasks, drawn by hand: out-of-fold scores of three members, of which the last is mostly noise."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.labels import Labels
from inference.manifest.model import ALL
from inference.manifest.task import Form, Metric, Task
from training.second_stage.member_scores import MemberScores
from zoo.edit import create_manifest

NUMBERS = Form("wide", "probability")
SETS, ONE = Form(column="labels"), Form(column="label", top_k=1)
TASKS = {
    "F1 of samples": Task(submission=SETS, metric=Metric(beta=1.0)),
    "micro F2": Task(submission=SETS, metric=Metric(average="micro")),
    "macro F1 of sets": Task(submission=SETS, metric=Metric(beta=1.0, average="macro")),
    "accuracy": Task(type="multiclass", submission=ONE, metric=Metric("accuracy")),
    "macro F1": Task(type="multiclass", submission=ONE, metric=Metric(beta=1.0, average="macro")),
    "kappa": Task(type="multiclass", submission=ONE, metric=Metric("kappa")),
    "MAP": Task(type="multiclass", submission=Form(column="label", top_k=3), metric=Metric("map", k=3)),
    "ROC AUC": Task(submission=NUMBERS, metric=Metric("roc_auc")),
    "ROC AUC of one": Task(type="binary", submission=NUMBERS, metric=Metric("roc_auc")),
    "log loss": Task(
        type="multiclass", submission=Form("wide", "probability", sum_to_one=True), metric=Metric("log_loss")
    ),
    "log loss of one": Task(type="binary", submission=NUMBERS, metric=Metric("log_loss")),
    "KL divergence": Task(
        type="multiclass", submission=Form("wide", "probability", sum_to_one=True), metric=Metric("kl_divergence")
    ),
    "RMSE": Task(type="regression", submission=Form("wide", "number"), metric=Metric("rmse"), value_range=(0.0, 100.0)),
}
NOISE = {"good": 1.0, "fair": 1.3, "noise": 6.0}
CLASSES = 5
FREQUENCIES = np.array([0.4, 0.25, 0.2, 0.1, 0.05])


def name_labels(task: Task) -> Labels:
    """Return five labels, or one where the task has one."""
    size = 1 if task.type in ("binary", "regression") else CLASSES
    names = tuple(f"kind {'abcde'[column]}" for column in range(size))
    return Labels(tuple(range(size)), names, {"labels": tuple(range(size))})


def draw_images(task: Task, images: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the truth of images, and each member's scores of them, (images, labels) each."""
    random = np.random.default_rng(seed)
    size = len(name_labels(task).ids)

    def blur(spread: float) -> np.ndarray:
        return spread * random.normal(0, 1, (images, size))

    if task.type == "regression":
        truth = random.random((images, 1)).astype(np.float32)
        scores = {name: 0.3 + 0.4 * truth + blur(0.05 * noise) for name, noise in NOISE.items()}
    elif task.metric.name == "kl_divergence":
        truth = random.dirichlet(4 * FREQUENCIES, images).astype(np.float32)
        scores = {name: divide(np.log(truth + 0.02) + blur(0.5 * noise)) for name, noise in NOISE.items()}
    elif task.type == "multiclass":
        classes = random.choice(size, images, p=FREQUENCIES)
        truth = np.arange(size) == classes[:, None]
        distance = np.abs(np.arange(size) - classes[:, None]) if task.metric.name == "kappa" else 2.0 * ~truth
        scores = {name: divide(-distance + blur(noise)) for name, noise in NOISE.items()}
    else:
        truth = random.random((images, size)) < (FREQUENCIES if size > 1 else 0.3)
        scores = {name: 1 / (1 + np.exp(1 - 2.5 * truth - blur(noise))) for name, noise in NOISE.items()}
    return truth, {name: part.astype(task.score_dtype) for name, part in scores.items()}


def divide(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def draw_members(task: Task, images: int, seed: int = 0) -> MemberScores:
    """Return drawn images as the input of a fit."""
    truth, scores = draw_images(task, images, seed)
    stacked = np.stack(list(scores.values()), axis=1)
    traits = np.random.default_rng(seed).random((images, 4)).astype(np.float32)
    return MemberScores(tuple(scores), (("labels",),) * len(scores), np.arange(images), stacked, truth, traits)


@dataclass(frozen=True)
class DrawnZoo:
    """A manifest with out-of-fold scores, and its train.csv."""

    manifest: Path
    train: Path


def draw_eyes(truth: np.ndarray, seed: int) -> np.ndarray:
    """Return the outputs of a network for features, (images, 2): noise, and the share of labels that are true."""
    random = np.random.default_rng([seed, 1])
    return np.stack([random.random(len(truth)), truth.mean(axis=1)], axis=1).astype(np.float16)


def write_zoo(
    folder: Path,
    task: Task,
    images: int,
    seed: int = 0,
    held_out: Mapping[str, Sequence[int]] | None = None,
    *,
    eyes: bool = False,
) -> DrawnZoo:
    """Write a zoo of three models and no checkpoints.

    `held_out`: by model, the images of its predictions, default all; `eyes`: add a model for features.
    """
    labels = name_labels(task)
    truth, scores = draw_images(task, images, seed)
    rows = "".join(f"{label},{name}\n" for label, name in zip(labels.ids, labels.names, strict=True))
    (folder / "labels.csv").write_text(f"label_id,label_name\n{rows}")
    (folder / "train.csv").write_text(write_truth(truth, task))
    path = folder / MANIFEST_NAME
    write_manifest(create_manifest(path, folder / "labels.csv", folder / "train.csv", task), path)
    document = json.loads(path.read_text())
    if eyes:
        scores["eyes"] = draw_eyes(truth, seed)
    for name, part in scores.items():
        chosen = (held_out or {}).get(name, range(images))
        np.save(folder / f"{name}.npy", part[list(chosen)])
        (folder / f"{name}.txt").write_text("".join(f"image {row}.jpg\n" for row in chosen))
        entries = {
            kind: {"file": file, "sha256": hash_file(folder / file)}
            for kind, file in (("scores", f"{name}.npy"), ("ids", f"{name}.txt"))
        }
        model = {"name": name, "architecture": "x", "group": ALL, "image_size": 32, "interpolation": "bicubic"}
        model |= {"mean": [0.5] * 3, "std": [0.5] * 3, "out_of_fold": entries}
        if name == "eyes":
            model |= {"group": "features", "outputs": part.shape[1]}
        else:
            document["ensemble"]["weights"]["labels"][name] = 1.0
        document["models"].append(model)
    path.write_text(json.dumps(document))
    read_manifest(path)
    return DrawnZoo(path, folder / "train.csv")


def write_truth(truth: np.ndarray, task: Task) -> str:
    """Return train.csv as `init` writes it."""
    low, high = task.value_range
    if task.type == "regression":
        column, cells = "value", [repr(float(low + value * (high - low))) for value in truth[:, 0].astype(float)]
    elif truth.dtype != np.bool_:
        column, cells = "targets", [" ".join(repr(float(share)) for share in row) for row in truth]
    else:
        column, cells = "labels", [" ".join(map(str, np.flatnonzero(row))) for row in truth]
    return f"id,{column}\n" + "".join(f"image {row}.jpg,{cell}\n" for row, cell in enumerate(cells))
