"""The dry run of the script: the packed bundle in a sandbox similar to a Kaggle kernel."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from inference.__main__ import COMPLETE, DEGRADED
from inference.basics.errors import OutputError, RehearsalError
from inference.basics.files import make_folder
from inference.manifest.bundle import read_bundle
from inference.manifest.file import NO_DATASETS
from packing.check.competition import open_contents
from packing.check.mount import mount_competition, refuse_inside
from packing.dry_run.outcome import Rehearsal, read_outcome
from packing.dry_run.scratch import make_scratch

SANDBOX = Path(__file__).with_name("sandbox.py")


def rehearse(
    bundle: Path,
    competition: Path,
    out: Path,
    limit: int | None = None,
    time_limit: float | None = None,
    predictions: bool = False,
    strict: bool = True,
    expected: int | None = None,
    attached: Mapping[str, Path] = NO_DATASETS,
) -> Rehearsal:
    """Run the bundle's script in a sandbox, check its submission, and move it with run_log.json to `out`.

    `competition`: its folder, as Kaggle mounts it; `limit`: number of images from the sample's start; `time_limit`:
    seconds of the notebook (default: the manifest's), of which the script gets all but the notebook reserve;
    `predictions`: keep each model's probabilities in OUT/predictions; `strict`: a degraded submission is an error;
    `expected`: number of test images of the rerun (default: the manifest's, else those of the sample); `attached`:
    OWNER/SLUG -> local copy of an attached dataset. Raises PackError: the folder differs from the task. Raises
    RehearsalError or SubmissionError, and leaves `out` unchanged: the script fails, predicts nothing, or writes an
    invalid submission.
    """
    manifest, labels = read_bundle(bundle, attached)
    if manifest.runtime.script is None:
        raise RehearsalError(f"{bundle}: `runtime.script`: missing; pack the bundle again")
    refuse_inside(out, competition)
    contents = open_contents(competition, manifest.task, labels)
    seconds = manifest.runtime.choose_time_limit(time_limit)
    make_folder(out)
    with make_scratch(out, "kernel-") as root:
        working, inputs = root / "working", root / "inputs"
        working.mkdir()
        inputs.mkdir()
        place = inputs / "competition"
        mount_competition(competition, place, manifest.task, contents, limit)
        read_only = [str(folder.resolve()) for folder in (bundle, competition, inputs, *attached.values())]
        command = [sys.executable, "-I", str(SANDBOX), os.pathsep.join(read_only)]
        command += [str(Path(read_only[0], manifest.runtime.script.file)), "--bundle", read_only[0]]
        command += ["--competition", str(place), "--out", "submission.csv"]
        command += ["--time-limit", str(seconds - manifest.runtime.choose_reserve(seconds))]
        command += [f"--attached={dataset}={folder.resolve()}" for dataset, folder in attached.items()]
        command += ["--predictions", "predictions"] if predictions else []
        command += ["--strict"] if strict else []
        try:
            finished = subprocess.run(command, cwd=working, check=False, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise RehearsalError(f"{bundle}: the script was stopped at the time limit of {seconds:.0f} s") from None
        if finished.returncode not in (COMPLETE, DEGRADED):
            raise RehearsalError(
                f"{bundle}: the script ended with exit code {finished.returncode}; see its message above"
            )
        try:
            images = expected or manifest.runtime.images or len(contents.sample.ids)
            rehearsal = read_outcome(working, place, manifest, labels, seconds, images)
        except RehearsalError as error:
            raise RehearsalError(f"{bundle}: {error}; see the messages of the script above") from error
        _move_results(working, out)
    return rehearsal


def _move_results(working: Path, out: Path) -> None:
    try:
        for path in sorted(working.iterdir()):
            if (out / path.name).is_dir():
                shutil.rmtree(out / path.name)
            path.replace(out / path.name)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}") from error
