"""A run of six images in three chunks, without files and models, on a clock that a test moves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from inference.basics.deadline import Deadline
from inference.basics.run_log import RunLog
from inference.ensemble.decide import answer_prior
from inference.ensemble.kept_scores import open_scores
from inference.ensemble.stackers import Stage
from inference.images.geometry import Geometry
from inference.images.read import Picture
from inference.manifest.file import parse_manifest
from inference.manifest.labels import Labels
from inference.manifest.model import Resize
from inference.run.budget import SMALLEST_RESERVE, Pace
from inference.run.plan import list_passes
from inference.run.state import Job, Request, State
from inference.task.sample import Sample

IDS = ("a", "b", "c", "d", "e", "f")
LABELS = Labels((0, 1, 2, 3), ("c::x", "c::y", "t::x", "t::y"), {"c": (0, 1), "t": (2, 3)})
MODEL = {"architecture": "x", "image_size": 64, "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}
MANIFEST = {
    "labels": {"file": "labels.csv", "sha256": "0" * 64, "groups": {"c": "c::", "t": "t::"}},
    "models": [{"name": "one", "group": "c", **MODEL}, {"name": "two", "group": "all", **MODEL}],
    "ensemble": {"weights": {"c": {"one": 1, "two": 1}, "t": {"two": 1}}},
    "decision": {
        "groups": {group: {"threshold": 0.5, "minimum": 0, "maximum": 2} for group in "ct"},
        "prior": {"c": [1], "t": [3]},
    },
    "runtime": {"batch_size": 2},
}


GEOMETRY = Geometry((64, 64), Resize(), "bilinear")  # of both models


def paint(brightness: int, note: str = "") -> Picture:
    """Return an image of one colour; `note`: what is missing from its file."""
    return Picture({GEOMETRY: np.full((64, 64, 3), brightness, np.uint8)}, np.full(4, brightness, np.float32), note)


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Stacker:
    """A stand-in for a stacker."""

    stopped = False

    def stop(self) -> None:
        self.stopped = True


def open_run(left: float, stackers: int = 0, changes: Mapping[str, object] | None = None) -> tuple[Job, State, Clock]:
    """Return a run with `left` seconds for its work, at its start; `changes`: keys of the manifest."""
    manifest, clock = parse_manifest(MANIFEST | dict(changes or {})), Clock()
    request = Request(Path("bundle"), Path("submission.csv"), images=Path("images"), sample=Path("sample.csv"))
    predictions, traits = open_scores(manifest, LABELS, len(IDS)), np.full((len(IDS), 4), np.nan, np.float32)
    sample, prior = Sample(("id", "attribute_ids"), IDS), answer_prior(manifest, LABELS)
    job = Job(request, manifest, LABELS, sample, [None] * len(IDS), predictions, traits, prior)
    stage = Stage(manifest, LABELS, tuple(Stacker() for _ in range(stackers)))  # type: ignore[misc]
    pace = Pace(Deadline(clock.time, left + SMALLEST_RESERVE, now=clock))
    return job, State(RunLog(), pace, None, list_passes(manifest), stage), clock


class Runner:
    """A stand-in for the runner of a model, whose scores are the brightness of the images, or darkness in hflip."""

    precision, is_settled, stopped = "fp32", True, False

    def __init__(self, clock: Clock, outputs: int = 2, seconds: float = 1.0) -> None:
        """`seconds`: per image and view."""
        self._clock, self._outputs, self._seconds = clock, outputs, seconds
        self.fault: Exception | None = None
        """Raised by `predict`."""
        self.shown: list[tuple[int, tuple[str, ...]]] = []
        """Images and views of each call of `predict`."""
        self.settled: list[bool] = []
        """Whether each call of `settle` had time."""

    def settle(self, batch: np.ndarray, has_time: bool) -> None:
        self.settled.append(has_time)

    def warm_up(self, batch: np.ndarray, views: Sequence[str]) -> None:
        self._clock.time += 50.0 if not self.shown else 0.0

    def predict(self, batch: np.ndarray, views: Sequence[str]) -> np.ndarray:
        if self.fault:
            raise self.fault
        self.shown.append((len(batch), tuple(views)))
        self._clock.time += self._seconds * len(batch) * len(views)
        bright = batch.mean(axis=(1, 2, 3), dtype=np.float32) / 255
        scores = np.mean([1 - bright if "hflip" in view else bright for view in views], axis=0, dtype=np.float32)
        return np.repeat(scores[:, None], self._outputs, axis=1)

    def stop(self) -> None:
        self.stopped = True
