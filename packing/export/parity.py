"""Differences between two forms of a model on real images: in scores, in labels, and in the task's metric."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import ImagesError
from inference.basics.files import hash_file, hash_texts
from inference.ensemble.decide import decide
from inference.images.geometry import read_geometry, resize_image
from inference.images.read import read_image
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest, Model, remove_stackers
from inference.manifest.task import Task
from inference.manifest.values import Precision
from inference.models.sessions import ModelSession
from packing.export.example_images import find_rows, list_all_images
from packing.export.losses import count_flips, measure_loss
from zoo.metrics.selection import Answers, Truth
from zoo.tables.train_table import read_table

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
    truth: Truth | None = None
    """(measured images, labels); None if unknown."""

    @functools.cached_property
    def hashes(self) -> list[str]:
        """sha256 of each file."""
        return [hash_file(path) for path in (*self.measured, *self.calibrated)]


@dataclass(frozen=True)
class Parity:
    """Difference between two forms of a model, in the fields of OnnxEntry."""

    parity: float
    """Largest difference in score."""
    flips: float
    """Labels that change, relative to the labels of the reference; of ranked labels, the best."""
    metric_loss: float
    """Loss of the task's metric; see `measure_loss`."""


def list_examples(
    folder: Path, most: int, calibrate: bool, labels: Labels, task: Task, train: Path | None = None
) -> Examples:
    """List the first `most` images of a folder by name; with `calibrate`, a third of them, at most 128, is set apart.

    `train`: a train.csv with the truth; images without a row are skipped. Raises ImagesError: too few; or TableError.
    """
    table = read_table(train, labels, task) if train else None
    found = list_all_images(folder)
    rows = {} if table is None else find_rows(folder, found, table)
    found = [path for path in found if table is None or path in rows][:most]
    split = len(found) - min(len(found) // CALIBRATED, MOST_CALIBRATED) if calibrate else len(found)
    wanted = SMALLEST + SMALLEST // (CALIBRATED - 1) if calibrate else SMALLEST
    if len(found) < wanted:
        which = f"images with a row in {train}" if train else "images"
        purpose = "parity and int8 calibration" if calibrate else "parity"
        raise ImagesError(f"{folder}: found {len(found)} {which}; wanted {wanted} for {purpose}; add images")
    truth = None if table is None else table.targets[[rows[path] for path in found[:split]]]
    return Examples(tuple(found[:split]), tuple(found[split:]), truth)


def read_batches(paths: Sequence[Path], model: Model) -> list[NDArray[np.uint8]]:
    """Read the images in the model's input size, in batches (images, height, width, 3) of at most 16."""
    geometry = dataclasses.replace(read_geometry(model), tiles=None)
    squares = [resize_image(read_image(path), geometry) for path in paths]
    return [np.stack(squares[start : start + BATCH]) for start in range(0, len(squares), BATCH)]


class Judge:
    """Measures the forms of one model on the measured images, with answers from this model alone."""

    def __init__(self, manifest: Manifest, model: Model, labels: Labels, examples: Examples) -> None:
        self.task, self.limit = manifest.task, manifest.runtime.metric_loss
        self._model, self._examples = model, examples
        self._predicted: dict[str, NDArray[np.float32]] = {}
        # The decision of the blend, because stackers have rules for other probabilities than a model's.
        blend = remove_stackers(manifest).decision
        own = {group: blend.groups[group] for group in manifest.groups_of(model) if group in blend.groups}
        self._decision = dataclasses.replace(blend, groups=own)
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
        rules = [str(self._decision), str(self.task)]
        truth = "" if self._truth is None else self._truth.tobytes().hex()
        return hash_texts(
            [precision, fp32, str(self.limit), str(read_geometry(self._model)), *rules, truth, *self._examples.hashes]
        )

    def predict(self, path: Path) -> NDArray[np.float32]:
        """Predict the measured images with the file at `path`. Raises SessionError."""
        session = ModelSession(self._model.name, path, len(self._columns), bounded=self.task.has_probabilities)
        return np.concatenate([session.predict(batch) for batch in self.batches])

    def compare(self, path: Path, reference: Path) -> Parity:
        """Compare the predictions of the file at `path` with those of `reference`. Raises SessionError."""
        wanted = self._predicted.get(reference.name)
        if wanted is None:
            wanted = self._predicted[reference.name] = self.predict(reference)
        return self.measure(self.predict(path), wanted)

    def measure(self, scores: NDArray[np.float32], reference: NDArray[np.float32]) -> Parity:
        """Compare two arrays of scores (images, labels of the model's group) of the first measured images."""
        found, wanted = self._decide(scores), self._decide(reference)
        truth = None if self._truth is None else self._truth[: len(wanted)]
        return Parity(
            parity=float(np.abs(scores - reference).max()),
            flips=count_flips(found, wanted, self.task),
            metric_loss=measure_loss(found, wanted, truth, self.task),
        )

    def _decide(self, scores: NDArray[np.float32]) -> Answers:
        whole = np.zeros((len(scores), len(self._labels.ids)), np.float32)
        whole[:, self._columns] = scores
        answers: Answers = decide(whole, self._labels, self._decision)[:, self._columns]
        return answers
