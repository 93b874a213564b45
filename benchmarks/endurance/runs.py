"""Runs of the script on the demo dataset, with models of a known speed or as packed."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sklearn.metrics import fbeta_score
from sklearn.preprocessing import MultiLabelBinarizer

from inference.basics.tables import read_columns
from inference.manifest.bundle import read_declared
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.task.cells import parse_label_ids
from inference.task.sample import read_sample
from inference.task.submission import check_submission

ROOT = Path(__file__).parents[2]
# Each pass, each read image and each selection by a stacker waits, so that the run time is known and does not depend on
# other work of the machine. After the given number of passes, the given model waits five times as long. The stand-in
# for a stacker returns the blend.
SLOWED = """
import json, sys, time
from inference.__main__ import main
from inference.ensemble import second_stage, stackers
from inference.models.sessions import ModelSession
from inference.run import answers, predict, sweep
waits = json.loads(sys.argv[1])
real, seen = ModelSession.predict, 0
def slow_model(self, batch, views=("identity",), full=0):
    global seen
    seen += len(batch) * len(views)
    slower = 5 if seen > waits["slow_from"] and self.name == waits["slow_model"] else 1
    time.sleep(waits["model"] * len(batch) * len(views) * slower)
    return real(self, batch, views, full)
ModelSession.predict = slow_model
read = sweep.read_picture
def slow_image(path, **more):
    time.sleep(waits["image"])
    return read(path, **more)
sweep.read_picture = slow_image
class Waiting:
    def stop(self):
        pass
def open_stage(manifest, labels, folder):
    return stackers.Stage(manifest, labels, (Waiting(),))
def slow_choice(stage, scores, traits):
    time.sleep(waits["stacker"] * len(traits) if stage.stackers else 0)
    return second_stage.choose_answers(stage.drop_stackers(), scores, traits)
if waits["stacker"]:
    predict.open_stage, answers.choose_answers = open_stage, slow_choice
sys.exit(main(sys.argv[2:]))
"""
NEVER = 10**9


@dataclass(frozen=True)
class Waits:
    """Seconds that a run waits besides its work."""

    model: float = 0.0
    """Per image and view."""
    image: float = 0.0
    """Per image that is read."""
    stacker: float = 0.0
    """Per image; 0 for a bundle without stackers."""
    slow_from: int = NEVER
    """Number of passes after which `slow_model` waits five times as long."""
    slow_model: str = "-"


@dataclass(frozen=True)
class Museum:
    """The output of `make demo`."""

    dataset: Path
    """The packed dataset."""
    museum: Path
    """The demo dataset with its test images."""
    sample: Path

    def read_bundle(self) -> tuple[Manifest, Labels]:
        """Read the manifest and the labels."""
        return read_declared(self.dataset)

    def start(self, out: Path, waits: Waits, *more: str) -> subprocess.Popen[str]:
        """Start the script."""
        command = [sys.executable, "-c", SLOWED, json.dumps(asdict(waits))]
        command += ["--bundle", str(self.dataset), "--images", str(self.museum / "test")]
        command += ["--sample", str(self.sample), "--out", str(out), *more]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    def check(self, submission: Path, sample: Path) -> None:
        """Raise SubmissionError if a submission does not fit its sample."""
        manifest, labels = self.read_bundle()
        check_submission(submission, read_sample(sample, manifest.task, labels), labels, manifest.task)

    def score(self, submission: Path) -> float:
        """Return the F2 of a submission, the mean over images, by scikit-learn. Raises SubmissionError: invalid."""
        _, labels = self.read_bundle()
        self.check(submission, self.sample)
        truth, given = (
            {name: parse_label_ids(cell) for name, cell in read_columns(path, ("id", "attribute_ids"))}
            for path in (self.museum / "truth.csv", submission)
        )
        binary = MultiLabelBinarizer(classes=sorted(labels.ids)).fit([])
        wanted, found = (binary.transform([table[name] for name in given]) for table in (truth, given))
        return float(fbeta_score(wanted, found, beta=2, average="samples", zero_division=0))


def read_notes(out: Path) -> str:
    """Return the notes and the degraded states of the run log."""
    log = json.loads(out.with_name("run_log.json").read_text(encoding="utf-8"))
    return "\n".join(f"    {line}" for line in [*log["notes"], *log["degraded"]])


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the process; return its exit code and messages."""
    _, errors = process.communicate()
    return process.returncode, errors


def time_run(
    museum: Museum, out: Path, waits: Waits, limit: float | None = None, pause: tuple[float, float] | None = None
) -> tuple[float, int, str]:
    """Return the run time in seconds with the start of Python, the exit code and the messages.

    `limit`: seconds from the same moment; `pause`: stop the process after so many seconds, for so many seconds.
    """
    started = time.monotonic()
    clock = ["--started-at", f"{started:.3f}"] + (["--time-limit", str(limit)] if limit else [])
    process = museum.start(out, waits, *clock)
    if pause:
        time.sleep(pause[0])
        process.send_signal(signal.SIGSTOP)
        time.sleep(pause[1])
        process.send_signal(signal.SIGCONT)
    code, errors = finish(process)
    return time.monotonic() - started, code, errors


def start_script(
    museum: Museum, images: Path, sample: Path, out: Path, megabytes: int | None = None
) -> tuple[int, str]:
    """Run the packed script; return its exit code and messages.

    `megabytes`: limit of its data, including thread stacks; it then runs on one core.
    """

    def limit() -> None:
        if megabytes:
            resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    command = [sys.executable, "-I", str(museum.dataset / "inference.pyz"), "--bundle", str(museum.dataset)]
    command += ["--images", str(images), "--sample", str(sample), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    finished = subprocess.run(
        command, env=environment, preexec_fn=limit, capture_output=True, text=True, check=False, cwd=ROOT
    )
    return finished.returncode, finished.stderr
