"""Differences between two forms of a model on real images: in probabilities, in labels, and in F2."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import ImagesError
from inference.basics.files import hash_file, hash_texts
from inference.ensemble.decide import decide_groups
from inference.images.geometry import read_geometry, resize_image
from inference.images.read import read_image
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest, Model, remove_stackers
from inference.manifest.values import Precision
from inference.models.sessions import ModelSession
from inference.task.image_places import SUFFIXES
from zoo.f2 import score_samples
from zoo.train_table import read_table

SMALLEST = 16  # the fewest images to measure parity on
BATCH = 16
CALIBRATED = 3  # one in three images is for calibration, up to the number below; the others are measured
MOST_CALIBRATED = 128


@dataclass(frozen=True)
class Examples:
    """Real images."""

    measured: tuple[Path, ...]
    """For parity."""
    calibrated: tuple[Path, ...] = ()
    """For the calibration of int8."""
    truth: NDArray[np.bool_] | None = None
    """(measured images, labels); None if unknown."""

    @functools.cached_property
    def hashes(self) -> list[str]:
        """sha256 of each file."""
        return [hash_file(path) for path in (*self.measured, *self.calibrated)]


@dataclass(frozen=True)
class Parity:
    """Difference between two forms of a model, in the fields of OnnxEntry."""

    parity: float
    """Largest difference in probability."""
    flips: float
    """Labels that change, relative to the labels of the reference."""
    f2_loss: float


def list_examples(folder: Path, most: int, calibrate: bool, labels: Labels, train: Path | None = None) -> Examples:
    """List the first `most` images of a folder by name; with `calibrate`, a third of them, at most 128, is set apart.

    `train`: a train.csv with the truth; images without a row are skipped. Raises ImagesError: too few; or TableError.
    """
    table = read_table(train, labels) if train else None
    known = None if table is None else frozenset(table.ids)
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    found = [path for path in found if known is None or path.stem in known][:most]
    split = len(found) - min(len(found) // CALIBRATED, MOST_CALIBRATED) if calibrate else len(found)
    wanted = SMALLEST + SMALLEST // (CALIBRATED - 1) if calibrate else SMALLEST
    if len(found) < wanted:
        which = f"images with a row in {train}" if train else "images"
        purpose = "parity and int8 calibration" if calibrate else "parity"
        raise ImagesError(f"{folder}: found {len(found)} {which}; wanted {wanted} for {purpose}; add images")
    truth = None if table is None else table.order_targets([path.stem for path in found[:split]])
    return Examples(tuple(found[:split]), tuple(found[split:]), truth)


def read_batches(paths: Sequence[Path], model: Model) -> list[NDArray[np.uint8]]:
    """Read the images in the model's input size, in batches (images, height, width, 3) of at most 16."""
    geometry = dataclasses.replace(read_geometry(model), tiles=None)
    squares = [resize_image(read_image(path), geometry) for path in paths]
    return [np.stack(squares[start : start + BATCH]) for start in range(0, len(squares), BATCH)]


class Judge:
    """Measures the forms of one model on the measured images, with labels selected from this model alone."""

    def __init__(self, manifest: Manifest, model: Model, labels: Labels, examples: Examples) -> None:
        self._model, self._examples = model, examples
        self.limit = manifest.runtime.f2_loss
        self._predicted: dict[str, NDArray[np.float32]] = {}
        # The decision rules of the blend, because stackers have rules for other probabilities than a model's.
        rules = remove_stackers(manifest).decision.groups
        self._rules = {group: rules[group] for group in manifest.groups_of(model)}
        self._labels, self._columns = labels, np.array(labels.columns(model.group))
        self._truth = None if examples.truth is None else examples.truth[:, self._columns]

    @functools.cached_property
    def batches(self) -> list[NDArray[np.uint8]]:
        """The measured images, see `read_batches`."""
        return read_batches(self._examples.measured, self._model)

    @functools.cached_property
    def calibration(self) -> list[NDArray[np.uint8]]:
        """The images for calibration, see `read_batches`."""
        return read_batches(self._examples.calibrated, self._model)

    def hash_source(self, precision: Precision, fp32: str) -> str:
        """Hash everything that a precision and its parity depend on; `fp32`: sha256 of the fp32 file."""
        rules = [f"{group} {rule}" for group, rule in self._rules.items()]
        truth = "" if self._truth is None else self._truth.tobytes().hex()
        return hash_texts(
            [precision, fp32, str(self.limit), str(read_geometry(self._model)), *rules, truth, *self._examples.hashes]
        )

    def predict(self, path: Path) -> NDArray[np.float32]:
        """Predict the measured images with the file at `path`. Raises SessionError."""
        session = ModelSession(self._model.name, path, len(self._columns))
        return np.concatenate([session.predict(batch) for batch in self.batches])

    def compare(self, path: Path, reference: Path) -> Parity:
        """Compare the predictions of the file at `path` with those of `reference`. Raises SessionError."""
        wanted = self._predicted.get(reference.name)
        if wanted is None:
            wanted = self._predicted[reference.name] = self.predict(reference)
        return self.measure(self.predict(path), wanted)

    def measure(self, answer: NDArray[np.float32], reference: NDArray[np.float32]) -> Parity:
        """Compare two arrays of probabilities (images, labels of the model's group) of the first measured images."""
        found, wanted = self._decide(answer), self._decide(reference)
        truth = wanted if self._truth is None else self._truth[: len(wanted)]
        return Parity(
            parity=float(np.abs(answer - reference).max()),
            flips=float((found != wanted).sum() / wanted.sum()),
            f2_loss=float((score_samples(wanted, truth) - score_samples(found, truth)).mean()),
        )

    def _decide(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        whole = np.zeros((len(scores), len(self._labels.ids)), np.float32)
        whole[:, self._columns] = scores
        return decide_groups(whole, self._labels, self._rules)[:, self._columns]
