"""What a dry run ended with: its submission and run_log.json, and the run time of the whole test that follows."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import ManifestError, RehearsalError
from inference.basics.run_log import format_seconds
from inference.ensemble.decide import answer_prior
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.manifest.values import NotNegative
from inference.task.sample import Sample, read_sample
from inference.task.submission import check_submission, list_rows
from packing.run_log import read_log

SUBMISSION, LOG = "submission.csv", "run_log.json"


@dataclass(frozen=True)
class Rehearsal:
    """A successful dry run."""

    images: int
    unreadable: int
    seconds: float
    """Run time of the script."""
    rate: float
    """Images/s while predicting; 0 if the last start of the script found all images predicted."""
    time_limit: float
    """Of the whole notebook, seconds."""
    reserve: float
    """Seconds of the time limit kept for the notebook outside of the script."""
    expected: int
    """Number of test images of the rerun."""
    degraded: tuple[str, ...] = ()
    """Why the submission is worse than it could be."""

    def predict_seconds(self) -> float | None:
        """Estimate the script's seconds in the rerun: the measured start-up, plus its images at the measured rate.

        None without a rate.
        """
        if self.rate == 0:
            return None
        return max(0.0, self.seconds - self.images / self.rate) + self.expected / self.rate

    def describe(self) -> str:
        """Return a summary of two lines, and one for each reason of a degraded submission."""
        return "\n".join(
            [
                f"{self.images} images in {self.seconds:.1f} s, {self.rate:.1f} images/s, {self.unreadable} unreadable",
                f"{self.expected:,} images at this rate: {self._judge()}",
                *(f"DEGRADED: {reason}" for reason in self.degraded),
            ]
        )

    def _judge(self) -> str:
        needed = self.predict_seconds()
        if needed is None:
            return "unknown, as the last start of the script predicted none"
        verdict = "fits" if needed <= self.time_limit - self.reserve else "DOES NOT FIT"
        return (
            f"{format_seconds(needed)}; {verdict} the time limit of {format_seconds(self.time_limit)} "
            f"less the notebook reserve of {format_seconds(self.reserve)}"
        )


@dataclass(frozen=True)
class _Seconds:
    total: NotNegative


@dataclass(frozen=True)
class _Log:
    images_per_second: NotNegative
    unreadable: Mapping[str, str]
    degraded: tuple[str, ...]
    seconds: _Seconds


def read_outcome(
    working: Path, competition: Path, manifest: Manifest, labels: Labels, time_limit: float, expected: int
) -> Rehearsal:
    """Check the submission and the log in `working`.

    `competition`: the folder that the run has read; `time_limit`: seconds of the notebook; `expected`: number of
    images of the rerun.
    Raises SubmissionError: an invalid submission. Raises RehearsalError: no log, as the script did not finish, or no
    image has a prediction.
    """
    submission, path = working / SUBMISSION, working / LOG
    sample = read_sample(competition / manifest.task.sample, manifest.task, labels)
    check_submission(submission, sample, labels, manifest.task)
    try:
        log: _Log = read_log(path, _Log)
    except FileNotFoundError:
        raise RehearsalError(f"the script did not finish: it wrote no {LOG}") from None
    except (OSError, ManifestError, UnicodeDecodeError) as error:
        raise RehearsalError(f"{LOG}: {error}; wanted the log of a finished run") from error
    # Without a reason in the log, real predictions happen to be the prior answer.
    if (log.unreadable or log.degraded) and has_only_prior(submission, sample, manifest, labels):
        reasons = log.degraded or tuple(f"image {name}: {reason}" for name, reason in log.unreadable.items())
        raise RehearsalError(f"all {len(sample.ids)} images have the prior labels: {reasons[0]}; wanted predictions")
    reserve = manifest.runtime.choose_reserve(time_limit)
    total = log.seconds.total
    return Rehearsal(
        images=len(sample.ids),
        unreadable=len(log.unreadable),
        seconds=total,
        rate=log.images_per_second,
        time_limit=time_limit,
        reserve=reserve,
        expected=expected,
        degraded=log.degraded,
    )


def has_only_prior(submission: Path, sample: Sample, manifest: Manifest, labels: Labels) -> bool:
    """Return whether a valid submission gives the prior answer to every image."""
    prior = [answer_prior(manifest, labels)] * len(sample.ids)
    with submission.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        return all(
            given == wanted for given, wanted in zip(rows, list_rows(sample, prior, labels, manifest.task), strict=True)
        )
