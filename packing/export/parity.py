"""What another form of a model changes: on real images, in probabilities, in labels, and in F2."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.combine import leave_stackers_out
from inference.decide import decide_groups
from inference.errors import ImagesError, TableError
from inference.files import hash_file, hash_texts
from inference.images import SUFFIXES, read_geometry, read_image, resize_image
from inference.labels import Labels
from inference.manifest import Manifest, Model
from inference.rules import Precision
from inference.sessions import ModelSession
from inference.tables import parse_label_ids, read_columns

SMALLEST = 16  # images that parity is measured on at least
BATCH = 16
CALIBRATED = 3  # one in so many images is calibrated on, at most so many, and the others measured
MOST_CALIBRATED = 128

Truth = Mapping[str, frozenset[int]]  # image id -> label ids


@dataclass(frozen=True)
class Examples:
    """Real images: those that parity is measured on, others that int8 is calibrated on, and the truth of the former."""

    measured: tuple[Path, ...]
    calibrated: tuple[Path, ...] = ()
    truth: Truth | None = None

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


def list_examples(folder: Path, most: int, calibrate: bool, train: Path | None = None) -> Examples:
    """The first `most` images of a folder by name; where `calibrate`, a third of them apart, at most 128.

    `train`: a train.csv with the truth; only images that it knows count then. Raises ImagesError where there are too
    few, and TableError.
    """
    truth = read_truth(train) if train else None
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    found = [path for path in found if truth is None or path.stem in truth][:most]
    split = len(found) - min(len(found) // CALIBRATED, MOST_CALIBRATED) if calibrate else len(found)
    wanted = SMALLEST + SMALLEST // (CALIBRATED - 1) if calibrate else SMALLEST
    if len(found) < wanted:
        which = f"images that {train} has" if train else "images"
        purpose = "measured and int8 calibrated on" if calibrate else "measured on"
        raise ImagesError(f"{folder}: holds {len(found)} {which}; parity is {purpose} {wanted}, give --images")
    return Examples(tuple(found[:split]), tuple(found[split:]), truth)


def read_truth(train: Path) -> Truth:
    """The labels of each image of train.csv; raises TableError naming the file."""
    truth: dict[str, frozenset[int]] = {}
    for name, cell in read_columns(train, ("id", "attribute_ids")):
        try:
            truth[name] = frozenset(parse_label_ids(cell))
        except ValueError:
            raise TableError(f"{train}: image {name}: found attribute_ids {cell!r}, wanted label ids") from None
    return truth


def read_batches(paths: Sequence[Path], model: Model) -> list[NDArray[np.uint8]]:
    """The images as the model sees them, in batches (images, height, width, 3) of at most 16."""
    geometry = dataclasses.replace(read_geometry(model), tiles=None)
    squares = [resize_image(read_image(path), geometry) for path in paths]
    return [np.stack(squares[start : start + BATCH]) for start in range(0, len(squares), BATCH)]


class Judge:
    """Measures forms of one model, on the measured images and by the manifest's decision of the model alone."""

    def __init__(self, manifest: Manifest, model: Model, labels: Labels, examples: Examples) -> None:
        """Raises TableError where the truth has a label that labels.csv has not."""
        self._model, self._examples = model, examples
        self.limit = manifest.runtime.f2_loss
        self._asked: dict[str, NDArray[np.float32]] = {}
        # The rules of the blend are those that suit a model's own probabilities.
        rules = leave_stackers_out(manifest).decision.groups
        self._rules = {group: rules[group] for group in manifest.groups_of(model)}
        self._labels, self._columns = labels, np.array(labels.columns(model.group))
        self._truth: NDArray[np.bool_] | None = None
        if examples.truth is not None:
            self._truth = np.array([self._mark(examples.truth[path.stem], path) for path in examples.measured])

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
            f2_loss=float((score_f2(wanted, truth) - score_f2(taken, truth)).mean()),
        )

    def _decide(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        whole = np.zeros((len(scores), len(self._labels.ids)), np.float32)
        whole[:, self._columns] = scores
        return decide_groups(whole, self._labels, self._rules)[:, self._columns]

    def _mark(self, ids: frozenset[int], path: Path) -> list[bool]:
        unknown = ids - set(self._labels.ids)
        if unknown:
            raise TableError(f"the truth of {path.stem} has label id {min(unknown)}, which is not in labels.csv")
        return [self._labels.ids[column] in ids for column in self._columns]


def score_f2(taken: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F2 of each image; 0 where nothing is true. `taken`, `truth`: (images, labels), at least one taken."""
    scores: NDArray[np.float64] = 5 * (taken & truth).sum(axis=1) / (4 * truth.sum(axis=1) + taken.sum(axis=1))
    return scores
