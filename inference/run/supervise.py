"""Supervision of the script by the notebook: a valid submission first, restarts after a death, a check at the end."""

import codecs
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from inference.basics.deadline import Deadline
from inference.basics.errors import VitrineError
from inference.ensemble.decide import answer_prior
from inference.manifest.bundle import read_declared
from inference.manifest.file import NO_DATASETS
from inference.task.sample import read_sample
from inference.task.submission import check_submission, write_submission

ENDED = (0, 3)  # exit codes of the script after a complete or a degraded submission
REFUSED = (1, 2)  # after an error that it reported
LEAST_SECONDS = 5.0  # before the deadline: with less, the script is not started again
TRIAL_SECONDS, TRIAL_SHARE = 600.0, 0.1  # longest trial, and its largest share of the time left
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """A way to start the script."""

    description: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    """Variables that differ."""


WAYS = (
    Way("as before"),
    Way("without the GPU", (), NO_GPU),
    Way("with one lane and small batches", ("--low-memory",), NO_GPU),
)


def write_prior(bundle: Path, sample: Path, out: Path) -> None:
    """Write a submission of prior labels, so that there is a valid one whatever happens. Raises VitrineError."""
    manifest, labels = read_declared(bundle)
    wanted = read_sample(sample, manifest.task, labels)
    write_submission(out, wanted, [answer_prior(manifest, labels)] * len(wanted.ids), labels, manifest.task)


def run_trial(
    bundle: Path,
    images: Path,
    environment: Mapping[str, str],
    deadline: Deadline,
    attached: Mapping[str, Path] = NO_DATASETS,
) -> tuple[dict[str, Any] | None, str]:
    """Run one batch in a process of its own; return its BatchTrial as a dictionary, or None and the reason.

    `attached`: OWNER/SLUG -> folder of the attached datasets with files of models. A trial that fails is repeated once,
    as a kill may have another cause than the device.
    """
    command = [sys.executable, "-m", "inference.models.devices", "--bundle", str(bundle), "--images", str(images)]
    command += [f"--attached={dataset}={folder}" for dataset, folder in attached.items()]
    reason = ""
    for _ in range(2):
        seconds = min(TRIAL_SECONDS, TRIAL_SHARE * max(deadline.left(), 0.0))
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, errors="replace", timeout=seconds, check=False
            )
            if done.returncode == 0:
                found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
                return found, ""
            reason = (done.stderr.strip().splitlines() or [describe_end(done.returncode)])[-1]
        except subprocess.TimeoutExpired:
            reason = f"no result within {seconds:.0f} s"
        except (OSError, ValueError, IndexError) as error:
            reason = f"no result: {error}"
    return None, reason


def supervise(
    command: Sequence[str], environment: Mapping[str, str], deadline: Deadline, grace: float, out: Path, warn: Warn
) -> bool:
    """Run the script until it ends; after a death, start it again, as long as it has time and ways are left.

    `command`: without the options of time; `deadline`: of the script; `grace`: seconds after it before the script is
    killed; `out`: its submission; `warn`: called for each problem. The script continues from its saved predictions. An
    error that it reports would come again, so the last way is tried at once; that way is repeated as long as each
    start saves further predictions. Returns whether the script has ended at its first start.
    """
    limit, started = f"{deadline.limit - deadline.kept:.3f}", f"{deadline.started:.3f}"
    timed = [*command, "--time-limit", limit, "--started-at", started]
    patience = deadline.keep(-grace)
    ways = iter(WAYS)
    way, saved, starts = Way(""), 0, 0
    while True:
        starts += 1
        code = run_script([*timed, *way.options], {**environment, **(way.environment or {})}, patience)
        if code in ENDED:
            return starts == 1
        end = "did not end before its time limit and was stopped" if code is None else describe_end(code)
        following = next((one for one in ways if code not in REFUSED or one is WAYS[-1]), None)
        before, saved = saved, measure_saved(out)
        if following is None and code not in REFUSED and saved > before:
            following = way
        if following is None or deadline.left() < LEAST_SECONDS:
            reason = "no time is left to start it again" if following else "it is not started again"
            warn(f"the script {end}; {reason}; the submission is the last one that it wrote")
            return False
        way = following
        warn(f"the script {end}; starting it again {way.description}; it continues from its saved predictions")


def run_script(command: Sequence[str], environment: Mapping[str, str], patience: Deadline) -> int | None:
    """Run a command and print its output as it comes; return its exit code, or None if the deadline ended it."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            # If memory runs out, Linux should kill the script and not the notebook.
            with suppress(OSError):
                Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
            assert process.stdout is not None
            for text in read_output(process.stdout, patience):
                print(text, end="", flush=True)
            return process.wait(max(patience.left(), 0.1))
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()


def read_output(pipe: IO[bytes], patience: Deadline) -> Iterator[str]:
    """Yield the text that arrives in a pipe until its end or the deadline."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while (left := patience.left()) > 0:
            if selector.select(left):
                content = os.read(pipe.fileno(), 65536)
                if not content:
                    return
                yield decoder.decode(content)


def describe_end(code: int) -> str:
    """Describe an exit code of `subprocess`, as in 'was killed by signal 9 (Killed)'."""
    if code >= 0:
        return f"ended with exit code {code}"
    hint = "; Linux does so if memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({signal.strsignal(-code)}{hint})"


def measure_saved(out: Path) -> int:
    """Return the bytes of the predictions saved in the work folder of the submission `out`."""
    try:
        return sum(path.stat().st_size for path in out.with_name(f"{out.name}.work").iterdir())
    except OSError:
        return 0


def check_result(bundle: Path, sample: Path, out: Path, warn: Warn) -> int:
    """Check the submission, and replace it by prior labels if it is invalid; return its number of rows.

    Raises VitrineError: that cannot be written either.
    """
    manifest, labels = read_declared(bundle)
    wanted = read_sample(sample, manifest.task, labels)
    try:
        check_submission(out, wanted, labels, manifest.task)
    except VitrineError as error:
        warn(f"{error}; replaced by prior labels")
        write_prior(bundle, sample, out)
        check_submission(out, wanted, labels, manifest.task)
    return len(wanted.rows)
