"""Differences between two forms of a model on real images: in scores, in labels, and in the task's metric."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.files import hash_texts
from inference.ensemble.decide import decide
from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.manifest.records import Manifest, remove_stackers
from inference.manifest.values import Precision
from inference.models.sessions import ModelSession
from packing.export.example_images import Examples, choose_geometry
from packing.export.graphs.form import read_form
from packing.export.losses import count_flips, measure_loss
from packing.export.sources import FORM
from zoo.metrics.selection import Answers

BATCH = 16


@dataclass(frozen=True)
class Parity:
    """Difference between two forms of a model, in the fields of OnnxEntry."""

    parity: float
    """Largest difference in score."""
    flips: float
    """Labels that change, relative to the labels of the reference; of ranked labels, the best."""
    metric_loss: float
    """Loss of the task's metric; see `measure_loss`."""


class Judge:
    """Measures the forms of one model on the measured images, with answers from this model alone."""

    def __init__(self, manifest: Manifest, model: Model, labels: Labels, examples: Examples) -> None:
        self.task, self.limit = manifest.task, manifest.runtime.metric_loss
        self.form, self.bounded = read_form(manifest, model, labels), manifest.is_bounded(model)
        self._model, self._examples = model, examples
        self._predicted: dict[str, NDArray[np.float32]] = {}
        # The decision of the blend, because stackers have rules for other probabilities than a model's.
        blend = remove_stackers(manifest).decision
        own = {group: blend.groups[group] for group in manifest.groups_of(model) if group in blend.groups}
        self._decision = dataclasses.replace(blend, groups=own)
        self._labels, self._columns = labels, np.array(labels.columns(model.group), np.int64)
        self._truth = None if examples.truth is None else examples.truth[:, self._columns]

    @functools.cached_property
    def batches(self) -> list[NDArray[np.uint8]]:
        """The measured images in the model's geometry, in batches (images, height, width, 3) of at most 16."""
        return self._list_batches(0, len(self._examples.measured))

    @functools.cached_property
    def calibration(self) -> list[NDArray[np.uint8]]:
        """The images for calibration, as `batches`."""
        first = len(self._examples.measured)
        return self._list_batches(first, first + len(self._examples.calibrated))

    def hash_source(self, precision: Precision, fp32: str) -> str:
        """Hash everything that a precision and its parity depend on; `fp32`: sha256 of the fp32 file."""
        rules = [str(self._decision), str(self.task), str(choose_geometry(self._model))]
        truth = "" if self._truth is None else self._truth.tobytes().hex()
        return hash_texts([precision, str(FORM), fp32, str(self.limit), *rules, truth, *self._examples.hashes])

    def open(self, path: Path) -> ModelSession:
        """Open the model's file at `path`. Raises SessionError."""
        model, form = self._model, self.form
        return ModelSession(model.name, path, form.outputs, bounded=self.bounded, cuts=form.cuts, merge=form.merge)

    def predict(self, path: Path) -> NDArray[np.float32]:
        """Predict the measured images in one view with the file at `path`. Raises SessionError."""
        session = self.open(path)
        return np.concatenate([session.predict(batch, (self.form.measured,)) for batch in self.batches])

    def compare(self, path: Path, reference: Path) -> Parity:
        """Compare the predictions of the file at `path` with those of `reference`. Raises SessionError."""
        wanted = self._predicted.get(reference.name)
        if wanted is None:
            wanted = self._predicted[reference.name] = self.predict(reference)
        return self.measure(self.predict(path), wanted)

    def measure(self, scores: NDArray[np.float32], reference: NDArray[np.float32]) -> Parity:
        """Compare two arrays of scores (images, outputs) of the first measured images; features have no labels."""
        parity = float(np.abs(scores - reference).max())
        if not self._columns.size:
            return Parity(parity, 0.0, 0.0)
        found, wanted = self._decide(scores), self._decide(reference)
        truth = None if self._truth is None else self._truth[: len(wanted)]
        return Parity(
            parity=parity,
            flips=count_flips(found, wanted, self.task),
            metric_loss=measure_loss(found, wanted, truth, self.task),
        )

    def _decide(self, scores: NDArray[np.float32]) -> Answers:
        whole = np.zeros((len(scores), len(self._labels.ids)), np.float32)
        whole[:, self._columns] = scores
        answers: Answers = decide(whole, self._labels, self._decision)[:, self._columns]
        return answers

    def _list_batches(self, first: int, end: int) -> list[NDArray[np.uint8]]:
        images = self._examples.arrays[choose_geometry(self._model)]
        return [images[start : min(start + BATCH, end)] for start in range(first, end, BATCH)]
