"""Predictions on images that a network was not trained on: written beside its checkpoint, read for the decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import TrainingError
from inference.files import replace_file
from inference.labels import Labels
from inference.manifest import Model, verify_files


@dataclass(frozen=True)
class OutOfFoldScores:
    """A model's probabilities, float16, (images, labels of its group), and the file and ids of their rows."""

    path: Path
    ids: tuple[str, ...]
    scores: NDArray[np.float16]


def write_out_of_fold(scores: NDArray[np.floating[Any]], ids: Sequence[str], out: Path, name: str) -> None:
    """Write NAME.oof.npy (float16, one row an image) and NAME.oof.ids.txt (one id a line)."""
    with replace_file(out / f"{name}.oof.npy") as temporary, temporary.open("wb") as file:
        np.save(file, scores.astype(np.float16))
    with replace_file(out / f"{name}.oof.ids.txt") as temporary:
        temporary.write_text("".join(f"{image}\n" for image in ids), encoding="utf-8")


def read_out_of_fold(model: Model, key: str, home: Path, labels: Labels) -> OutOfFoldScores:
    """The predictions that the manifest declares for a model, hashes verified; `key`: where the model stands in it.

    Raises ManifestError or TrainingError naming the model and the file: none declared, another file than declared, a
    shape that does not agree with the ids or the labels, a doubled id, a value that is no probability.
    """
    if model.out_of_fold is None:
        raise TrainingError(
            f"model {model.name}: `{key}.out_of_fold`: missing; add the model with --oof, or give it the weight 0"
        )
    declared = model.out_of_fold
    verify_files([(f"{key}.out_of_fold.scores", declared.scores), (f"{key}.out_of_fold.ids", declared.ids)], home)
    path, ids_path = home / declared.scores.file, home / declared.ids.file
    ids = tuple(ids_path.read_text(encoding="utf-8").split())
    try:
        scores = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"model {model.name}: {path}: not an array: {error}") from error
    wanted = (len(ids), len(labels.columns(model.group)))
    if scores.shape != wanted or scores.dtype != np.float16:
        raise TrainingError(
            f"model {model.name}: {path}: found {scores.dtype} {scores.shape}, wanted float16 {wanted}: "
            f"the images of {ids_path.name}, the labels of {model.group!r}"
        )
    for image, row in zip(ids, scores, strict=True):
        if not ((row >= 0) & (row <= 1)).all():  # NaN is neither
            raise TrainingError(f"model {model.name}: {path}: image {image} has {_name_fault(row)}, wanted 0 to 1")
    if len(set(ids)) < len(ids):
        doubled = next(image for place, image in enumerate(ids) if image in ids[:place])
        raise TrainingError(f"model {model.name}: {ids_path}: image {doubled} is given twice; ids must differ")
    return OutOfFoldScores(path, ids, scores)


def align_scores(
    predictions: Mapping[str, OutOfFoldScores], ids: Sequence[str]
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float16]]]:
    """The places in `ids` of the images that every model predicted, ascending, and each model's rows of them.

    `predictions`: by model name; `ids`: those of train.csv. Raises TrainingError naming the model and the file: an
    image that train.csv lacks, no image that all models share.
    """
    places = {image: place for place, image in enumerate(ids)}
    common = set(ids)
    for name, part in predictions.items():
        strange = next((image for image in part.ids if image not in places), None)
        if strange is not None:
            raise TrainingError(
                f"model {name}: {part.path}: image {strange} is not in train.csv; is it the right --train?"
            )
        if common.isdisjoint(part.ids):
            raise TrainingError(
                f"model {name}: {part.path}: none of its {len(part.ids)} images was held out by the models before it; "
                "all models of a blend must share a fold (same --folds, --fold, --seed and --limit)"
            )
        common.intersection_update(part.ids)
    shared = np.array(sorted(places[image] for image in common))
    aligned = {}
    for name, part in predictions.items():
        rows = {image: row for row, image in enumerate(part.ids)}
        aligned[name] = part.scores[[rows[ids[place]] for place in shared]]
    return shared, aligned


def _name_fault(row: NDArray[np.float16]) -> str:
    return "NaN" if np.isnan(row).any() else f"{row.min():g} to {row.max():g}"
