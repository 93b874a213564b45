"""The input of the second stage: each member's out-of-fold scores of the images that it held out."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import ImageError, TrainingError
from inference.basics.memory import measure_available
from inference.images.geometry import Draft
from inference.images.read import read_picture
from inference.images.traits import TRAITS
from inference.manifest.model import FEATURES, Model, list_members
from inference.manifest.task import ID
from inference.task.image_places import find_images
from zoo.metrics.selection import Truth
from zoo.tables.out_of_fold import Zoo, read_out_of_fold
from zoo.tables.train_table import IMAGE, Table

ARRAYS = 3
"""Arrays of the size of all members' scores: of all images, of those that are used, and of a fold."""
FEWEST_STACKED = 0.5
"""Share of the images that a member must have held out to be read by stackers: of the others, they would mostly learn
a filled-in mean."""


@dataclass(frozen=True)
class Coverage:
    """Which member held out which image, in a zoo where some held out only a part of the images."""

    held_out: NDArray[np.bool_]
    """(rows, members)."""
    whole: tuple[str, ...]
    """Members that held out every image."""
    stacked: tuple[str, ...]
    """Members that the stackers read, those for features too: they held out at least FEWEST_STACKED of the images."""


@dataclass(frozen=True)
class MemberScores:
    """Scores and truth of the same images."""

    names: tuple[str, ...]
    covers: tuple[tuple[str, ...], ...]
    """The groups that each member covers."""
    rows: NDArray[np.int64]
    """Indices of the images in train.csv, ascending."""
    scores: NDArray[np.floating[Any]]
    """(rows, members, labels), in `Task.score_dtype`, NaN for labels that a member does not cover, and for images that
    it did not hold out."""
    truth: Truth
    """(rows, labels), as `Table.targets`."""
    traits: NDArray[np.float32]
    """(rows, 4), see inference.images.traits; NaN where unknown."""
    features: Mapping[str, NDArray[np.floating[Any]]] = dataclasses.field(default_factory=dict)
    """Member of group 'features' -> its outputs, (rows, outputs), NaN for images that it did not hold out."""
    coverage: Coverage | None = None
    """None: every member held out every image."""

    @property
    def stacked(self) -> tuple[str, ...]:
        """The members that the CNN and the trees read."""
        return tuple(name for name in self.names if self.coverage is None or name in self.coverage.stacked)

    @property
    def stacked_features(self) -> tuple[str, ...]:
        """The members of group 'features' that the trees read."""
        return tuple(name for name in self.features if self.coverage is None or name in self.coverage.stacked)

    def take(self, places: NDArray[np.int64]) -> "MemberScores":
        """Select images by their positions in `rows`."""
        covered = self.coverage
        return dataclasses.replace(
            self,
            rows=self.rows[places],
            scores=self.scores[places],
            truth=self.truth[places],
            traits=self.traits[places],
            features={name: outputs[places] for name, outputs in self.features.items()},
            coverage=covered and dataclasses.replace(covered, held_out=covered.held_out[places]),
        )

    def leave_out(self, name: str) -> "MemberScores":
        """Remove the scores of a member, as in a kernel that has no time for it."""
        scores = self.scores.copy()
        scores[:, self.names.index(name)] = np.nan
        return dataclasses.replace(self, scores=scores)

    def list_held_out(self, name: str) -> NDArray[np.bool_]:
        """Return which images a member held out, (rows,)."""
        if name in self.features:
            known: NDArray[np.bool_] = ~np.isnan(self.features[name][:, 0])
            return known
        if self.coverage is None:
            return np.ones(len(self.rows), np.bool_)
        held_out: NDArray[np.bool_] = self.coverage.held_out[:, self.names.index(name)]
        return held_out

    def join_features(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return the outputs of members of group 'features' side by side, (rows, outputs)."""
        parts = [self.features[name].astype(np.float32) for name in names]
        return np.concatenate([np.empty((len(self.rows), 0), np.float32), *parts], axis=1)


def gather_scores(zoo: Zoo, table: Table) -> MemberScores:
    """Gather the out-of-fold scores of all models of a zoo, of the images with a score for every group.

    The models of one member are its folds. Raises ManifestError or TrainingError: as read_out_of_fold; an image is
    missing in train.csv; two folds of one member held out the same image; no image has a score for every group.
    """
    listed = list_members(zoo.manifest.models)
    members = {name: models for name, models in listed.items() if models[0].group != FEATURES}
    if not members:
        raise TrainingError(f"{zoo.path}: found no model with scores for labels; wanted at least one")
    extra = {name: models for name, models in listed.items() if name not in members}
    outputs = {name: models[0].outputs for name, models in extra.items()}
    shape = (len(table.ids), len(members), len(zoo.labels.ids))
    check_memory(zoo, shape, sum(outputs.values()))
    gathered = np.full(shape, np.nan, zoo.manifest.task.score_dtype)
    held_out = np.zeros(shape[:2], np.bool_)
    covers = tuple(zoo.manifest.groups_of(models[0]) for models in members.values())
    for place, models in enumerate(members.values()):
        columns = list(zoo.labels.columns(models[0].group))
        for held, scores in read_member(zoo, table, models):
            gathered[np.ix_(held, [place], columns)] = scores[:, None]
            held_out[held, place] = True
    features = {name: np.full((len(table.ids), size), np.nan, np.float32) for name, size in outputs.items()}
    for name, models in extra.items():
        for held, scores in read_member(zoo, table, models):
            features[name][held] = scores
    known = [held_out[:, [group in own for own in covers]].any(axis=1) for group in zoo.labels.groups]
    rows = np.flatnonzero(np.all(known, axis=0))
    if not len(rows):
        raise TrainingError(
            f"{zoo.path}: no image was held out by members of every group ({', '.join(members)}); train the members of "
            "different groups with the same folds"
        )
    traits = np.full((len(rows), len(TRAITS)), np.nan, np.float32)
    found = MemberScores(
        tuple(members),
        covers,
        rows,
        gathered[rows],
        table.targets[rows],
        traits,
        {name: outputs[rows] for name, outputs in features.items()},
    )
    return dataclasses.replace(found, coverage=measure_coverage(found, held_out[rows]))


def read_member(
    zoo: Zoo, table: Table, models: Sequence[Model]
) -> Iterator[tuple[list[int], NDArray[np.floating[Any]]]]:
    """Yield each fold's images, as indices in train.csv, and its scores, (images, outputs); errors: gather_scores."""
    places = {image: place for place, image in enumerate(table.ids)}
    keys = {model.name: f"models[{index}]" for index, model in enumerate(zoo.manifest.models)}
    owners: dict[int, str] = {}
    for model in models:
        part = read_out_of_fold(model, keys[model.name], zoo.home, zoo.labels, zoo.manifest)
        for image in part.ids:
            if image not in places:
                raise TrainingError(
                    f"model {model.name}: {part.path}: image {image} is missing in train.csv; check --train"
                )
            owner = owners.setdefault(places[image], model.name)
            if owner != model.name:
                raise TrainingError(
                    f"models {owner} and {model.name}: both held out image {image}; the folds of one member must "
                    "not share an image, because one of them was trained on it"
                )
        yield [places[image] for image in part.ids], part.scores


def measure_coverage(members: MemberScores, held_out: NDArray[np.bool_]) -> Coverage | None:
    """Return which images each member held out, and who of them is read by stackers; None if all held out all.

    `held_out`: (rows, members).
    """
    shares = dict(zip(members.names, held_out.mean(axis=0).tolist(), strict=True))
    shares |= {name: float(members.list_held_out(name).mean()) for name in members.features}
    if all(share == 1 for share in shares.values()):
        return None
    return Coverage(
        held_out,
        tuple(name for name in members.names if shares[name] == 1),
        tuple(name for name, share in shares.items() if share >= FEWEST_STACKED),
    )


def check_memory(zoo: Zoo, shape: tuple[int, int, int], features: int = 0) -> None:
    """Raise TrainingError if the scores of (images, members, labels) need more memory than is left.

    `features`: number of outputs of the members of group 'features'.
    """
    scores = math.prod(shape) * np.dtype(zoo.manifest.task.score_dtype).itemsize
    needed = ARRAYS * (scores + shape[0] * features * np.dtype(np.float32).itemsize)
    left = measure_available()
    if needed > left:
        images, members, labels = shape
        raise TrainingError(
            f"{zoo.path}: the scores of {images:,} images x {members} members x {labels:,} labels need about "
            f"{needed / 1e9:.1f} GB of memory; found {left / 1e9:.1f} GB; take models out of the manifest, "
            "or use a machine with more memory"
        )


def measure_evidence(
    members: MemberScores,
    ids: Sequence[str],
    folder: Path,
    draft: Draft | None,
    images: Sequence[str] | None = None,
) -> MemberScores:
    """Add the traits of the images in `folder`; NaN for missing or broken images, as in the kernel.

    `ids`: image ids, in the order of `members.rows`; `images`: their paths in `folder`, if they are not named by id;
    `draft`: how the kernel decodes JPEG files at reduced size.
    """
    from tqdm import tqdm

    def measure(path: Path | None) -> NDArray[np.float32]:
        try:
            return read_picture(path, [], draft=draft).traits if path else nothing
        except ImageError:
            return nothing

    nothing = np.full(len(TRAITS), np.nan, np.float32)
    rows = {image: {IMAGE: place} for image, place in zip(ids, images, strict=True)} if images else None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(measure, find_images(folder, ids, f"{{{IMAGE if rows else ID}}}", rows, follow_links=True))
        traits = np.stack(list(tqdm(found, "measuring images", len(ids), unit="image", mininterval=1)))
    return dataclasses.replace(members, traits=traits)
