"""Out-of-fold predictions: the array files beside the checkpoints, and the pooled predictions of a zoo's models."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.basics.files import read_text, replace_file
from inference.manifest.bundle import check_labels
from inference.manifest.file import read_manifest, verify_files
from inference.manifest.labels import Labels, read_labels
from inference.manifest.model import ALL, FEATURES, Model, name_member
from inference.manifest.records import Manifest
from zoo.tables.train_table import Table


@dataclass(frozen=True)
class OutOfFoldScores:
    """The out-of-fold predictions of one model."""

    path: Path
    ids: tuple[str, ...]
    scores: NDArray[np.floating[Any]]
    """(images, outputs of the model), in `Manifest.score_dtype`."""


@dataclass(frozen=True)
class Zoo:
    """A manifest and its labels."""

    path: Path
    manifest: Manifest
    labels: Labels

    @property
    def home(self) -> Path:
        """The manifest's folder, where its relative paths start."""
        return self.path.parent


@dataclass(frozen=True)
class PooledScores:
    """Out-of-fold predictions of a blend of models."""

    rows: NDArray[np.int64]
    """Rows of the images in train.csv, ascending."""
    scores: NDArray[np.float32]
    """(rows, labels): 0 for labels of other groups than `groups`."""
    groups: tuple[str, ...]
    """Groups that the models cover."""
    models: NDArray[np.int64]
    """Number of these models that held out each image, (rows,)."""

    def kinds(self, labels: Labels) -> tuple[str, ...]:
        """Return the kinds of scores: 'all' labels if every group is covered, and each group if there are several."""
        whole = (ALL,) if len(self.groups) == len(labels.groups) else ()
        return whole if len(labels.groups) == 1 else (*whole, *self.groups)

    def describe_models(self) -> str:
        """Return how many models held out an image, as in '2 models held out each image' or '1 to 3 models ...'."""
        least, most = int(self.models.min()), int(self.models.max())
        span = str(most) if least == most else f"{least} to {most}"
        return f"{span} model{'s' if most > 1 else ''} held out each image"


def write_out_of_fold(scores: NDArray[np.floating[Any]], ids: Sequence[str], out: Path, name: str) -> None:
    """Write NAME.oof.npy (as it is, one row per image) and NAME.oof.ids.txt (one id per line).

    `scores`: in `Manifest.score_dtype` of the model, which read_out_of_fold wants.
    """
    with replace_file(out / f"{name}.oof.npy") as temporary, temporary.open("wb") as file:
        np.save(file, scores)
    with replace_file(out / f"{name}.oof.ids.txt") as temporary:
        temporary.write_text("".join(f"{image}\n" for image in ids), encoding="utf-8")


def read_out_of_fold(model: Model, key: str, home: Path, labels: Labels, manifest: Manifest) -> OutOfFoldScores:
    """Read a model's predictions as declared in the manifest; `key`: the model's key there, such as `models[0]`.

    Raises ManifestError or TrainingError: no declaration, a wrong hash, a shape that does not match the ids and the
    model's outputs, a duplicate id, a value outside 0 to 1 where these are probabilities, or one that is not finite.
    """
    if model.out_of_fold is None:
        raise TrainingError(
            f"model {model.name}: `{key}.out_of_fold`: missing; "
            "add the model with --oof, or take it out of the manifest"
        )
    declared = model.out_of_fold
    verify_files([(f"{key}.out_of_fold.scores", declared.scores), (f"{key}.out_of_fold.ids", declared.ids)], home)
    path, ids_path = home / declared.scores.file, home / declared.ids.file
    ids = split_lines(read_text(ids_path))
    try:
        scores = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"model {model.name}: {path}: not an array: {error}") from error
    wanted, dtype = (len(ids), labels.count_outputs(model)), manifest.score_dtype(model)
    if scores.shape != wanted or scores.dtype != dtype:
        outputs = "the `outputs` of the model" if model.group == FEATURES else f"the labels of {model.group!r}"
        raise TrainingError(
            f"model {model.name}: {path}: found {scores.dtype} {scores.shape}; wanted {dtype} {wanted}: "
            f"the images of {ids_path.name}, {outputs}"
        )
    bounded = manifest.is_bounded(model)
    for image, row in zip(ids, scores, strict=True):
        # Comparisons with NaN are false.
        fits = ((row >= 0) & (row <= 1)).all() if bounded else np.isfinite(row).all()
        if not fits:
            span = "0 to 1" if bounded else "finite numbers"
            raise TrainingError(f"model {model.name}: {path}: image {image}: found {_name_fault(row)}; wanted {span}")
    if len(set(ids)) < len(ids):
        duplicate = next(image for place, image in enumerate(ids) if image in ids[:place])
        raise TrainingError(f"model {model.name}: {ids_path}: found image {duplicate} twice; wanted unique ids")
    return OutOfFoldScores(path, ids, scores)


def split_lines(text: str) -> tuple[str, ...]:
    """Return the image ids in a file with one per line; an id may hold spaces."""
    return tuple(line for line in text.split("\n") if line)


def _name_fault(row: NDArray[np.floating[Any]]) -> str:
    return "NaN" if np.isnan(row).any() else f"{row.min():g} to {row.max():g}"


def open_zoo(path: Path) -> Zoo:
    """Read a manifest and its labels; raises ManifestError or LabelsError."""
    manifest = read_manifest(path)
    verify_files([("labels", manifest.labels)], path.parent)
    labels = read_labels(path.parent / manifest.labels.file, manifest.labels.groups)
    check_labels(manifest, labels)
    return Zoo(path, manifest, labels)


def find_models(zoo: Zoo, names: Sequence[str]) -> list[Model]:
    """Return the models of these names, or of their members, in the manifest's order.

    Raises TrainingError: unknown name; it names the nearest.
    """
    known = {name for model in zoo.manifest.models for name in (model.name, name_member(model))}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(known))}"
            raise TrainingError(f"{zoo.path}: no model {name!r}; {hint}")
    return [model for model in zoo.manifest.models if model.name in names or name_member(model) in names]


def pool_blend(zoo: Zoo, table: Table) -> PooledScores:
    """Return the out-of-fold predictions of the manifest's blend; cross-fitting needs at least two images.

    Raises as pool_predictions, and TrainingError for fewer images.
    """
    blend = pool_models(zoo, table)
    if len(blend.rows) < 2:
        raise TrainingError(
            f"{zoo.path}: found 1 image with out-of-fold predictions for every group; wanted thousands, at least 2"
        )
    return blend


def pool_models(zoo: Zoo, table: Table, models: Sequence[Model] | None = None) -> PooledScores:
    """Return the out-of-fold predictions of these models with equal weights, or of the manifest's blend.

    Raises as pool_predictions.
    """
    if models is None:
        covered = {group for group, weights in zoo.manifest.ensemble.weights.items() if any(weights.values())}
    else:
        covered = {group for model in models for group in zoo.manifest.groups_of(model)}
    if not covered:
        raise TrainingError(f"{zoo.path}: no model has a weight above 0; wanted one with out-of-fold predictions")
    rows, scores = pool_predictions(zoo.manifest, zoo.home, zoo.labels, table.ids, models)
    counts = count_models(zoo.manifest, zoo.home, zoo.labels, table.ids, models)[rows]
    return PooledScores(rows, scores, tuple(group for group in zoo.labels.groups if group in covered), counts)


def pool_predictions(
    manifest: Manifest, home: Path, labels: Labels, ids: Sequence[str], models: Sequence[Model] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the images with a prediction for every group, as ascending rows of `ids`, and blended scores.

    `ids`: those of train.csv. `models`: blend these with equal weights; None: the manifest's blend. Only groups with a
    model count. A score, (rows, labels), is the weighted mean over models that cover the label and held out the image:
    of a network with several folds, only one model, so the metric is slightly worse than that of the kernel's blend. A
    label that no model covers scores 0. Raises ManifestError or TrainingError naming the model and the file.
    """
    weights = _choose_weights(manifest, labels, models)
    places = {image: place for place, image in enumerate(ids)}
    summed = np.zeros((len(ids), len(labels.ids)), np.float32)
    weighed = np.zeros((len(ids), len(labels.groups)), np.float32)
    for key, model in _list_weighed(manifest, weights).items():
        part = read_out_of_fold(model, key, home, labels, manifest)
        strange = next((image for image in part.ids if image not in places), None)
        if strange is not None:
            raise TrainingError(
                f"model {model.name}: {part.path}: image {strange} is not in train.csv; is it the right --train?"
            )
        rows = np.array([places[image] for image in part.ids])
        own = labels.columns(model.group)
        for place, (group, given) in enumerate(weights.items()):
            if model.name in given:
                columns = np.array(labels.columns(group))
                scores = part.scores[:, np.searchsorted(own, columns)].astype(np.float32)
                summed[rows[:, None], columns] += np.float32(given[model.name]) * scores
                weighed[rows, place] += np.float32(given[model.name])
    given_groups = [place for place, given in enumerate(weights.values()) if given]
    whole = np.flatnonzero((weighed[:, given_groups] > 0).all(axis=1))
    if not len(whole):
        raise TrainingError(
            f"no image was held out by models of all groups ({', '.join(group for group in weights if weights[group])})"
            "; train the models of different groups with the same folds file, seed and --limit"
        )
    for place, group in enumerate(weights):
        columns = np.array(labels.columns(group))
        summed[np.ix_(whole, columns)] /= np.maximum(weighed[whole, place], np.finfo(np.float32).tiny)[:, None]
    return whole, summed[whole]


def count_models(
    manifest: Manifest, home: Path, labels: Labels, ids: Sequence[str], models: Sequence[Model] | None = None
) -> NDArray[np.int64]:
    """Return how many of the models of pool_predictions held out each image, (ids,)."""
    places = {image: place for place, image in enumerate(ids)}
    counts = np.zeros(len(ids), np.int64)
    for model in _list_weighed(manifest, _choose_weights(manifest, labels, models)).values():
        if model.out_of_fold is not None:
            held_out = split_lines(read_text(home / model.out_of_fold.ids.file))
            counts[[places[image] for image in held_out]] += 1
    return counts


def _list_weighed(manifest: Manifest, weights: Mapping[str, Mapping[str, float]]) -> dict[str, Model]:
    """Return the models that have a weight, by their keys in the manifest."""
    chosen = {name for given in weights.values() for name in given}
    return {f"models[{index}]": model for index, model in enumerate(manifest.models) if model.name in chosen}


def _choose_weights(manifest: Manifest, labels: Labels, models: Sequence[Model] | None) -> dict[str, dict[str, float]]:
    """Return the weights above 0 by group and model."""
    if models is None:
        return {
            group: {name: weight for name, weight in manifest.ensemble.weights[group].items() if weight > 0}
            for group in labels.groups
        }
    return {
        group: {model.name: 1.0 for model in models if group in manifest.groups_of(model)} for group in labels.groups
    }
