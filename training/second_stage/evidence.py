"""What a second stage is fitted to: each member's out-of-fold scores of the images that all of them held out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.errors import TrainingError
from inference.manifest import list_members
from inference.members import gather_members
from training.data import Table
from training.out_of_fold import read_out_of_fold
from training.zoos import Zoo


@dataclass(frozen=True)
class Evidence:
    """Scores and truth of the same images.

    `members`: their names, in the order of `scores`; `rows`: places of the images in train.csv, ascending; `scores`:
    float16, (rows, members, labels), NaN for labels that a member does not cover; `truth`: (rows, labels).
    """

    members: tuple[str, ...]
    rows: NDArray[np.int64]
    scores: NDArray[np.float16]
    truth: NDArray[np.bool_]


def gather_evidence(zoo: Zoo, table: Table) -> Evidence:
    """The out-of-fold scores of all models of a zoo, those of one recipe put together.

    Raises ManifestError or TrainingError: as read_out_of_fold; an image that train.csv lacks; an image that two folds
    of one recipe claim to have held out; no image that all members held out.
    """
    places = {image: place for place, image in enumerate(table.ids)}
    keys = {model.name: f"models[{index}]" for index, model in enumerate(zoo.manifest.models)}
    members = list_members(zoo.manifest.models)
    gathered = np.full((len(table.ids), len(members), len(zoo.labels.ids)), np.nan, np.float16)
    common = np.ones(len(table.ids), np.bool_)
    for place, models in enumerate(members.values()):
        owners: dict[int, str] = {}
        for model in models:
            part = read_out_of_fold(model, keys[model.name], zoo.home, zoo.labels)
            for image in part.ids:
                if image not in places:
                    raise TrainingError(f"model {model.name}: {part.path}: image {image} is not in train.csv")
                owner = owners.setdefault(places[image], model.name)
                if owner != model.name:
                    raise TrainingError(
                        f"models {owner} and {model.name}: both say that they held out image {image}; the folds of one "
                        "recipe must not share an image: one of them was trained on it"
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
            f"{zoo.path}: no image was held out by every member ({', '.join(members)}); all need the same folds"
        )
    return Evidence(tuple(members), rows, gathered[rows], table.targets[rows])
