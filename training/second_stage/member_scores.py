"""The input of the second stage: each member's out-of-fold scores of the images that all members held out."""

import dataclasses
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import ImageError, TrainingError
from inference.basics.memory import measure_available
from inference.ensemble.blend import gather_members
from inference.images.geometry import Draft
from inference.images.read import read_picture
from inference.images.traits import TRAITS
from inference.manifest.records import list_members
from inference.manifest.task import ID
from inference.task.image_places import find_images
from zoo.metrics.selection import Truth
from zoo.tables.out_of_fold import Zoo, read_out_of_fold
from zoo.tables.train_table import IMAGE, Table

ARRAYS = 3
"""Arrays of the size of all members' scores: of all images, of those that all members held out, and of a fold."""


@dataclass(frozen=True)
class MemberScores:
    """Scores and truth of the same images."""

    names: tuple[str, ...]
    covers: tuple[tuple[str, ...], ...]
    """The groups that each member covers."""
    rows: NDArray[np.int64]
    """Indices of the images in train.csv, ascending."""
    scores: NDArray[np.floating[Any]]
    """(rows, members, labels), in `Task.score_dtype`, NaN for labels that a member does not cover."""
    truth: Truth
    """(rows, labels), as `Table.targets`."""
    traits: NDArray[np.float32]
    """(rows, 4), see inference.images.traits; NaN where unknown."""

    def take(self, places: NDArray[np.int64]) -> "MemberScores":
        """Select images by their positions in `rows`."""
        return dataclasses.replace(
            self,
            rows=self.rows[places],
            scores=self.scores[places],
            truth=self.truth[places],
            traits=self.traits[places],
        )

    def leave_out(self, name: str) -> "MemberScores":
        """Remove the scores of a member, as in a kernel that has no time for it."""
        scores = self.scores.copy()
        scores[:, self.names.index(name)] = np.nan
        return dataclasses.replace(self, scores=scores)


def gather_scores(zoo: Zoo, table: Table) -> MemberScores:
    """Gather the out-of-fold scores of all models of a zoo; the folds of one recipe are one member.

    Raises ManifestError or TrainingError: as read_out_of_fold; an image is missing in train.csv; two folds of one
    recipe held out the same image; no image was held out by all members.
    """
    places = {image: place for place, image in enumerate(table.ids)}
    keys = {model.name: f"models[{index}]" for index, model in enumerate(zoo.manifest.models)}
    members = list_members(zoo.manifest.models)
    shape = (len(table.ids), len(members), len(zoo.labels.ids))
    check_memory(zoo, shape)
    gathered = np.full(shape, np.nan, zoo.manifest.task.score_dtype)
    common = np.ones(len(table.ids), np.bool_)
    for place, models in enumerate(members.values()):
        owners: dict[int, str] = {}
        for model in models:
            part = read_out_of_fold(model, keys[model.name], zoo.home, zoo.labels, zoo.manifest.task)
            for image in part.ids:
                if image not in places:
                    raise TrainingError(
                        f"model {model.name}: {part.path}: image {image} is missing in train.csv; check --train"
                    )
                owner = owners.setdefault(places[image], model.name)
                if owner != model.name:
                    raise TrainingError(
                        f"models {owner} and {model.name}: both held out image {image}; the folds of one recipe must "
                        "not share an image, because one of them was trained on it"
                    )
            held = [places[image] for image in part.ids]
            one = gather_members({model.name: part.scores}, zoo.manifest, zoo.labels, [list(members)[place]])
            gathered[held, place] = one[:, 0]
        held_out = np.zeros_like(common)
        held_out[list(owners)] = True
        common &= held_out
    rows = np.flatnonzero(common)
    if not len(rows):
        raise TrainingError(
            f"{zoo.path}: no image was held out by all members ({', '.join(members)}); train all with the same folds"
        )
    covers = tuple(zoo.manifest.groups_of(models[0]) for models in members.values())
    traits = np.full((len(rows), len(TRAITS)), np.nan, np.float32)
    return MemberScores(tuple(members), covers, rows, gathered[rows], table.targets[rows], traits)


def check_memory(zoo: Zoo, shape: tuple[int, int, int]) -> None:
    """Raise TrainingError if the scores of (images, members, labels) need more memory than is left."""
    needed = ARRAYS * math.prod(shape) * np.dtype(zoo.manifest.task.score_dtype).itemsize
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
