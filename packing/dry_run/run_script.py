"""The dry run of the script: the packed bundle in a sandbox similar to a Kaggle kernel."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.__main__ import COMPLETE, DEGRADED
from inference.basics.errors import OutputError, RehearsalError
from inference.basics.files import make_folder
from inference.basics.run_log import format_seconds
from inference.manifest.bundle import read_bundle
from inference.task.ids import read_ids
from inference.task.submission import check_submission

STAGE_2_IMAGES = 38_801  # iMet 2019's hidden test
SANDBOX = Path(__file__).with_name("sandbox.py")


@dataclass(frozen=True)
class Rehearsal:
    """A successful dry run."""

    images: int
    unreadable: int
    seconds: float
    """Run time of the script."""
    rate: float
    """Images/s while predicting."""
    time_limit: float

    def predict_seconds(self, images: int = STAGE_2_IMAGES) -> float:
        """Estimate the run time for `images`: the measured start-up, plus the images at the measured rate."""
        return max(0.0, self.seconds - self.images / self.rate) + images / self.rate

    def describe(self) -> str:
        """Return a summary of two lines."""
        needed = self.predict_seconds()
        verdict = "fits" if needed <= self.time_limit else "DOES NOT FIT"
        return (
            f"{self.images} images in {self.seconds:.1f} s, {self.rate:.1f} images/s, {self.unreadable} unreadable\n"
            f"{STAGE_2_IMAGES:,} images at this rate: {format_seconds(needed)}; "
            f"{verdict} the time limit of {format_seconds(self.time_limit)}"
        )


def rehearse(
    bundle: Path,
    images: Path,
    sample: Path,
    out: Path,
    limit: int | None = None,
    time_limit: float | None = None,
    predictions: bool = False,
    strict: bool = True,
) -> Rehearsal:
    """Run the bundle's script in a sandbox, check its submission, and move it with run_log.json to `out`.

    `limit`: number of images from the sample's start; `time_limit`: seconds (default: the manifest's); `predictions`:
    keep each model's probabilities in OUT/predictions; `strict`: a degraded submission is an error.
    Raises RehearsalError or SubmissionError, and leaves `out` unchanged: the script fails or its submission is invalid.
    """
    manifest, labels = read_bundle(bundle)
    if manifest.runtime.script is None:
        raise RehearsalError(f"{bundle}: `runtime.script`: missing; pack the bundle again")
    ids = read_ids(sample)[:limit]
    make_folder(out)
    with tempfile.TemporaryDirectory(prefix="kernel-", dir=out) as temporary:
        working, inputs = Path(temporary) / "working", Path(temporary) / "inputs"
        working.mkdir()
        inputs.mkdir()
        cut = write_sample(inputs / "sample_submission.csv", ids)
        read_only = [str(folder.resolve()) for folder in (bundle, images, inputs)]
        command = [sys.executable, "-I", str(SANDBOX), os.pathsep.join(read_only)]
        command += [str(Path(read_only[0], manifest.runtime.script.file)), "--bundle", read_only[0]]
        command += ["--images", read_only[1], "--sample", str(cut.resolve()), "--out", "submission.csv"]
        command += ["--time-limit", str(manifest.runtime.choose_time_limit(time_limit))]
        command += ["--predictions", "predictions"] if predictions else []
        command += ["--strict"] if strict else []
        finished = subprocess.run(command, cwd=working, check=False)
        if finished.returncode not in (COMPLETE, DEGRADED):
            raise RehearsalError(
                f"{bundle}: the script ended with exit code {finished.returncode}; see its message above"
            )
        check_submission(working / "submission.csv", ids, labels)
        log: dict[str, Any] = json.loads((working / "run_log.json").read_text(encoding="utf-8"))
        _move_results(working, out)
    seconds, rate = log["seconds"]["total"], log["images_per_second"]
    return Rehearsal(len(ids), len(log["unreadable"]), seconds, rate, log["time_limit"])


def write_sample(path: Path, ids: list[str]) -> Path:
    """Write a sample submission of these ids; return its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("id", "attribute_ids"))
        rows.writerows((image_id, "0") for image_id in ids)
    return path


def _move_results(working: Path, out: Path) -> None:
    try:
        for path in sorted(working.iterdir()):
            if (out / path.name).is_dir():
                shutil.rmtree(out / path.name)
            path.replace(out / path.name)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}") from error
