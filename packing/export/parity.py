"""What another form of a model changes: on real images, in probabilities, in labels, and in F2."""

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
from inference.ensemble.second_stage import leave_stackers_out
from inference.images.geometry import read_geometry, resize_image
from inference.images.read import read_image
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest, Model
from inference.manifest.values import Precision
from inference.models.sessions import ModelSession
from inference.task.image_places import SUFFIXES
from zoo.f2 import score_samples
from zoo.train_table import read_table

SMALLEST = 16  # images that parity is measured on at least
BATCH = 16
CALIBRATED = 3  # one in so many images is calibrated on, at most so many, and the others measured
MOST_CALIBRATED = 128


@dataclass(frozen=True)
class Examples:
    """Real images: those that parity is measured on, others that int8 is calibrated on, and the truth of the former."""

    measured: tuple[Path, ...]
    calibrated: tuple[Path, ...] = ()
    truth: NDArray[np.bool_] | None = None

    @functools.cached_property
    def hashes(self) -> list[str]:
        """Of each file."""
        return [hash_file(path) for path in (*self.measured, *self.calibrated)]


@dataclass(frozen=True)
class Parity:
    """As OnnxEntry has it: largest difference in probability, share of labels that flip, loss of F2."""

    parity: float
    flips: float
    f2_loss: float


def list_examples(folder: Path, most: int, calibrate: bool, labels: Labels, train: Path | None = None) -> Examples:
    """The first `most` images of a folder by name; where `calibrate`, a third of them apart, at most 128.

    `train`: a train.csv with the truth; only images that it knows count then. Raises ImagesError where there are too
    few, and TableError.
    """
    table = read_table(train, labels) if train else None
    known = None if table is None else frozenset(table.ids)
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    found = [path for path in found if known is None or path.stem in known][:most]
    split = len(found) - min(len(found) // CALIBRATED, MOST_CALIBRATED) if calibrate else len(found)
    wanted = SMALLEST + SMALLEST // (CALIBRATED - 1) if calibrate else SMALLEST
    if len(found) < wanted:
        which = f"images that {train} has" if train else "images"
        purpose = "measured and int8 calibrated on" if calibrate else "measured on"
        raise ImagesError(f"{folder}: holds {len(found)} {which}; parity is {purpose} {wanted}, give --images")
    truth = None if table is None else table.order_targets([path.stem for path in found[:split]])
    return Examples(tuple(found[:split]), tuple(found[split:]), truth)


def read_batches(paths: Sequence[Path], model: Model) -> list[NDArray[np.uint8]]:
    """The images as the model sees them, in batches (images, height, width, 3) of at most 16."""
    geometry = dataclasses.replace(read_geometry(model), tiles=None)
    squares = [resize_image(read_image(path), geometry) for path in paths]
    return [np.stack(squares[start : start + BATCH]) for start in range(0, len(squares), BATCH)]


class Judge:
    """Measures forms of one model, on the measured images and by the manifest's decision of the model alone."""

    def __init__(self, manifest: Manifest, model: Model, labels: Labels, examples: Examples) -> None:
        self._model, self._examples = model, examples
        self.limit = manifest.runtime.f2_loss
        self._asked: dict[str, NDArray[np.float32]] = {}
        # The rules of the blend are those that suit a model's own probabilities.
        rules = leave_stackers_out(manifest).decision.groups
        self._rules = {group: rules[group] for group in manifest.groups_of(model)}
        self._labels, self._columns = labels, np.array(labels.columns(model.group))
        self._truth = None if examples.truth is None else examples.truth[:, self._columns]

    @functools.cached_property
    def batches(self) -> list[NDArray[np.uint8]]:
        """The measured images as the model sees them, (images, height, width, 3), at most 16 each."""
        return read_batches(self._examples.measured, self._model)

    @functools.cached_property
    def calibration(self) -> list[NDArray[np.uint8]]:
        """The images to calibrate on, in the same shape."""
        return read_batches(self._examples.calibrated, self._model)

    def hash_source(self, precision: Precision, fp32: str) -> str:
        """Hash of all that another precision and its parity are made from; `fp32`: hash of that file."""
        rules = [f"{group} {rule}" for group, rule in self._rules.items()]
        truth = "" if self._truth is None else self._truth.tobytes().hex()
        return hash_texts(
            [precision, fp32, str(self.limit), str(read_geometry(self._model)), *rules, truth, *self._examples.hashes]
        )

    def ask(self, path: Path) -> NDArray[np.float32]:
        """The probabilities that the file gives the measured images; raises SessionError."""
        session = ModelSession(self._model.name, path, len(self._columns))
        return np.concatenate([session.predict(batch) for batch in self.batches])

    def compare(self, path: Path, reference: Path) -> Parity:
        """What the file at `path` changes of what the one at `reference` answers; raises SessionError."""
        wanted = self._asked.get(reference.name)
        if wanted is None:
            wanted = self._asked[reference.name] = self.ask(reference)
        return self.measure(self.ask(path), wanted)

    def measure(self, answer: NDArray[np.float32], reference: NDArray[np.float32]) -> Parity:
        """What `answer` changes of `reference`, both (images, labels of the model's group) of the measured images.

        The reference may be of the first of them only.
        """
        taken, wanted = self._decide(answer), self._decide(reference)
        truth = wanted if self._truth is None else self._truth[: len(wanted)]
        return Parity(
            parity=float(np.abs(answer - reference).max()),
            flips=float((taken != wanted).sum() / wanted.sum()),
            f2_loss=float((score_samples(wanted, truth) - score_samples(taken, truth)).mean()),
        )

    def _decide(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        whole = np.zeros((len(scores), len(self._labels.ids)), np.float32)
        whole[:, self._columns] = scores
        return decide_groups(whole, self._labels, self._rules)[:, self._columns]
