"""Zoos of a team, drawn by hand: the same task and images, other models, folds, orders and ids of the labels."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.basics.files import hash_file
from inference.ensemble.blend import blend
from inference.ensemble.second_stage import mix_scores
from inference.ensemble.stackers import open_stage
from inference.manifest.file import MANIFEST_NAME, write_manifest
from inference.manifest.model import ALL, FileEntry, Model, OutOfFold
from inference.manifest.records import BLEND, Ensemble, Manifest
from inference.manifest.task import Task
from training.second_stage.fitted import Layers, take_group
from training.second_stage.member_scores import gather_scores
from training.second_stage.stackers.cnn import CnnSettings, fit_cnn
from training.second_stage.stackers.export_stackers import FOLDER, export_layers
from training.second_stage.stackers.trees import fit_pairs
from zoo.edit import create_manifest
from zoo.tables.out_of_fold import Zoo, open_zoo, write_out_of_fold
from zoo.tables.train_table import read_table

NAMES = ("culture::greek", "culture::roman", "tag::birds", "tag::boats", "tag::trees")
IMAGES = 240
IDS = tuple(f"{row:06x}" for row in range(IMAGES))
# Label names in the order of labels.csv, and the first id; a teammate's labels.csv has another order and other ids.
MINE, THEIRS = (NAMES, 0), (("tag::trees", "culture::roman", "tag::birds", "culture::greek", "tag::boats"), 100)
Labelling = tuple[Sequence[str], int]
MIX = {"culture": {"blend": 0.7, "trees": 0.3}, "tag": {"cnn_tag": 0.6, "trees": 0.4}}


@dataclass(frozen=True)
class Team:
    """The manifests of two zoos."""

    mine: Path
    theirs: Path


def draw_truth() -> np.ndarray:
    """Return the truth, (images, labels in the order of NAMES); every image has a label."""
    truth = np.random.default_rng(0).random((IMAGES, len(NAMES))) < np.array([0.4, 0.5, 0.5, 0.3, 0.2])
    truth[~truth.any(axis=1), 2] = True
    return truth


@dataclass(frozen=True)
class Drawn:
    """A model to draw."""

    name: str
    group: str
    noise: float
    rows: range
    """Images that it held out."""
    member: str | None = None
    fold: int | None = None


def write_zoo(folder: Path, labelling: Labelling, drawn: Sequence[Drawn], seed: int = 1) -> Path:
    """Write a zoo without checkpoints, and train.csv; return the path of its manifest."""
    order, first = labelling
    folder.mkdir(parents=True)
    ids = {name: first + place for place, name in enumerate(order)}
    rows = "".join(f"{ids[name]},{name}\n" for name in order)
    (folder / "labels.csv").write_text(f"attribute_id,attribute_name\n{rows}")
    truth = draw_truth()
    cells = [" ".join(str(ids[NAMES[column]]) for column in np.flatnonzero(row)) for row in truth]
    (folder / "train.csv").write_text(
        "id,attribute_ids\n" + "".join(f"{image},{cell}\n" for image, cell in zip(IDS, cells, strict=True))
    )
    path = folder / MANIFEST_NAME
    manifest = create_manifest(path, folder / "labels.csv", folder / "train.csv", Task())
    manifest = dataclasses.replace(
        manifest,
        labels=dataclasses.replace(manifest.labels, groups={"culture": "culture::", "tag": "tag::"}),
    )
    random, models = np.random.default_rng(seed), []
    for one in drawn:
        columns = [NAMES.index(name) for name in order if one.group in (ALL, name.partition("::")[0])]
        logits = (
            3.0 * truth[one.rows][:, columns] - 1.5 + one.noise * random.normal(0, 1, (len(one.rows), len(columns)))
        )
        scores = (1 / (1 + np.exp(-logits))).astype(Task().score_dtype)
        write_out_of_fold(scores, [IDS[row] for row in one.rows], folder, one.name)
        files = (f"{one.name}.oof.npy", f"{one.name}.oof.ids.txt")
        entry = OutOfFold(*(FileEntry(file, hash_file(folder / file)) for file in files))
        models.append(
            Model(
                one.name,
                "test_resnet",
                one.group,
                32,
                (0.5,) * 3,
                (0.5,) * 3,
                "bicubic",
                member=one.member,
                fold=one.fold,
                out_of_fold=entry,
            )
        )
    weights = {
        group: {one.name: 1.0 + place for place, one in enumerate(drawn) if one.group in (ALL, group)}
        for group in ("culture", "tag")
    }
    write_manifest(dataclasses.replace(manifest, models=tuple(models), ensemble=Ensemble(weights)), path)
    return path


def write_mine(folder: Path, labelling: Labelling = MINE) -> Path:
    """Write a zoo of one network in two folds, and one of the tags that held out all images."""
    half = IMAGES // 2
    return write_zoo(
        folder,
        labelling,
        [
            Drawn("net_f0", ALL, 1.0, range(half), "net", 0),
            Drawn("net_f1", ALL, 1.0, range(half, IMAGES), "net", 1),
            Drawn("tags", "tag", 1.2, range(IMAGES)),
        ],
    )


def write_theirs(folder: Path, labelling: Labelling = THEIRS) -> Path:
    """Write a zoo of two networks, in other folds, one of them with the name of one of `write_mine`."""
    third = IMAGES // 3
    return write_zoo(
        folder,
        labelling,
        [
            Drawn("net_f0", ALL, 1.1, range(third), "net", 0),
            Drawn("net_f1", ALL, 1.1, range(third, IMAGES), "net", 1),
            Drawn("wide", ALL, 0.9, range(IMAGES)),
        ],
        seed=2,
    )


def fit_stage(path: Path) -> None:
    """Fit real stackers to a zoo, a CNN of the tags and trees, and declare them with MIX.

    The out-of-fold scores of the second stage are those of its kernel.
    """
    zoo = open_zoo(path)
    labels, task = zoo.labels, zoo.manifest.task
    members = gather_scores(zoo, read_table(zoo.home / "train.csv", labels, task))
    own, truth = take_group(members, labels, "tag"), members.truth[:, labels.columns("tag")]
    cnn = fit_cnn(own, truth, CnnSettings(epochs=1, updates=30), seed=0)
    trees = fit_pairs(members, labels, zoo.manifest.ensemble.weights, seed=0)
    layers = Layers(zoo.manifest.ensemble.weights, {"tag": cnn}, trees)
    (zoo.home / FOLDER).mkdir()
    stackers = export_layers(layers, MIX, members, labels, zoo.home / FOLDER)
    ensemble = dataclasses.replace(zoo.manifest.ensemble, stackers=stackers, mix=MIX)
    write_manifest(dataclasses.replace(zoo.manifest, ensemble=ensemble), path)
    write_stage_scores(path)


def write_stage_scores(path: Path) -> None:
    """Write and declare out-of-fold scores of a zoo's second stage: those of its kernel on the models' own."""
    zoo = open_zoo(path)
    scores = {
        model.name: spread(zoo, model, np.load(zoo.home / model.out_of_fold.scores.file))
        for model in zoo.manifest.models
        if model.out_of_fold
    }
    found = score_kernel(path, scores)
    (zoo.home / FOLDER).mkdir(exist_ok=True)
    write_out_of_fold(found.astype(zoo.manifest.task.score_dtype), IDS, zoo.home / FOLDER, "scores")
    files = [f"{FOLDER}/scores.oof.npy", f"{FOLDER}/scores.oof.ids.txt"]
    entry = OutOfFold(*(FileEntry(file, hash_file(zoo.home / file)) for file in files))
    ensemble = dataclasses.replace(zoo.manifest.ensemble, out_of_fold=entry)
    write_manifest(dataclasses.replace(zoo.manifest, ensemble=ensemble), path)


def spread(zoo: Zoo, model: Model, scores: np.ndarray) -> np.ndarray:
    """Return scores of all images, NaN for those that a model did not hold out."""
    assert model.out_of_fold
    ids = (zoo.home / model.out_of_fold.ids.file).read_text().split()
    whole = np.full((IMAGES, scores.shape[1]), np.nan, np.float32)
    whole[[IDS.index(image) for image in ids]] = scores
    return whole


def score_kernel(path: Path, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what the kernel's second stage makes of the models' scores, (images, labels)."""
    zoo = open_zoo(path)
    manifest: Manifest = zoo.manifest
    stage = open_stage(manifest, zoo.labels, path.parent)
    names = (BLEND, *manifest.ensemble.blends)
    blends = {name: blend(scores, manifest, zoo.labels, name) for name in names}
    traits = np.full((len(blends[BLEND]), 4), np.nan, np.float32)
    return mix_scores(dict(scores), blends, traits, manifest, zoo.labels, stage.stackers)


def draw_scores(path: Path, images: int, seed: int) -> dict[str, np.ndarray]:
    """Return random scores by model, (images, labels of its group), without equal ones."""
    zoo, random = open_zoo(path), np.random.default_rng(seed)
    return {
        model.name: random.random((images, len(zoo.labels.columns(model.group)))).astype(np.float32)
        for model in zoo.manifest.models
    }


def list_labels(path: Path) -> tuple[str, ...]:
    """Return the names of the labels of a zoo, in its order."""
    return open_zoo(path).labels.names


def reorder(path: Path, model: str, scores: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return a model's scores with columns in the order of `names`, one label after the other."""
    zoo = open_zoo(path)
    group = next(one.group for one in zoo.manifest.models if one.name == model)
    own = [zoo.labels.names[column] for column in zoo.labels.columns(group)]
    columns = [own.index(name) for name in names if name in own]
    return scores[:, columns]
