"""The dry run: the packed bundle, run here as Kaggle would run it."""

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
    """A dry run that ended well; `seconds` of the script from start to end, `rate` in images/s while predicting."""

    images: int
    unreadable: int
    seconds: float
    rate: float
    time_limit: float

    def predict_seconds(self, images: int = STAGE_2_IMAGES) -> float:
        """How long that many images would take: the start-up as measured, the rest at the measured rate."""
        return max(0.0, self.seconds - self.images / self.rate) + images / self.rate

    def describe(self) -> str:
        """Two lines for a person."""
        needed = self.predict_seconds()
        verdict = "fits" if needed <= self.time_limit else "DOES NOT FIT"
        return (
            f"{self.images} images in {self.seconds:.1f} s, {self.rate:.1f} images/s, {self.unreadable} unreadable\n"
            f"{STAGE_2_IMAGES:,} images at this rate: {format_seconds(needed)}; "
            f"{verdict} the limit of {format_seconds(self.time_limit)}"
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

    `limit`: only the first images of the sample; `time_limit` in seconds, None for the manifest's; `predictions`: keep
    each model's probabilities in OUT/predictions; `strict`: a submission that lacks something is an error.
    Raises RehearsalError where the script fails or the submission is not valid; `out` is then as it was.
    """
    manifest, labels = read_bundle(bundle)
    if manifest.runtime.script is None:
        raise RehearsalError(f"{bundle}: carries no script; pack it again")
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
                f"{bundle}: its script ended with exit code {finished.returncode}; its message is above"
            )
        check_submission(working / "submission.csv", ids, labels)
        log: dict[str, Any] = json.loads((working / "run_log.json").read_text(encoding="utf-8"))
        _move_results(working, out)
    return Rehearsal(
        images=len(ids),
        unreadable=len(log["unreadable"]),
        seconds=log["seconds"]["total"],
        rate=log["images_per_second"],
        time_limit=log["time_limit"],
    )


def write_sample(path: Path, ids: list[str]) -> Path:
    """A sample submission of these ids."""
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
