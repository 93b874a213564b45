"""The upload of a bundle: dataset, notebook, results. Steps can be repeated; files already on Kaggle are skipped."""

import json
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.basics.errors import PackError
from inference.basics.files import hash_file, make_folder
from inference.basics.run_log import format_seconds
from inference.manifest.file import MANIFEST_NAME, NO_DATASETS
from packing.check.check import check_bundle
from packing.pack.metadata import DATASET_METADATA, KERNEL_METADATA
from packing.upload.client import ATTEMPTS, Answer, ask_client, call_client

RESULTS = r"^(submission\.csv|run_log\.json)$"
ENDS = ("complete", "error", "cancel_requested", "cancel_acknowledged")
SETTLED = ("ready", "failed", "deleted")
_STATUS = re.compile(r'has status "(?:\w+\.)?(\w+)"')
_FAILURE = re.compile(r'Failure message: "(.*)"', re.DOTALL)
_VERSION = re.compile(r"Kernel version (\d+) ")


@dataclass(frozen=True)
class Upload:
    """A bundle to upload."""

    dataset: Path
    kernel: Path
    dataset_id: str
    kernel_id: str
    notes: str
    """Version notes, which hold the manifest's sha256."""
    ready_limit: float = 1800.0
    """Longest wait for the dataset, seconds."""
    run_limit: float = 12 * 3600.0
    """Longest wait for the notebook, seconds."""
    pause: float = 10.0
    """Seconds between two status requests."""


def prepare_upload(bundle: Path, attached: Mapping[str, Path] = NO_DATASETS, **limits: float) -> Upload:
    """Check the bundle and read its names; `attached`: OWNER/SLUG -> local copy of a dataset that is on Kaggle already.

    Raises PackError or ManifestError: Kaggle would refuse the bundle.
    """
    check_bundle(bundle, attached)
    dataset, kernel = bundle / "dataset", bundle / "kernel"
    if not kernel.is_dir():
        raise PackError(
            f"{bundle}: no kernel folder; name the folder that `pack` wrote, which holds dataset and kernel"
        )
    dataset_id = json.loads((dataset / DATASET_METADATA).read_text(encoding="utf-8"))["id"]
    kernel_id = json.loads((kernel / KERNEL_METADATA).read_text(encoding="utf-8"))["id"]
    # The manifest holds the hash of every other file, so its hash identifies the bundle.
    return Upload(dataset, kernel, dataset_id, kernel_id, f"vitrine {hash_file(dataset / MANIFEST_NAME)}", **limits)


def describe_upload(upload: Upload, wait: bool, out: Path) -> str:
    """Return the commands of an upload, one per line."""
    commands = [
        (["datasets", "status", upload.dataset_id], "does the dataset exist?"),
        (["datasets", "download", upload.dataset_id, "-f", MANIFEST_NAME], "is it this bundle?"),
        (_create(upload), "if it does not exist"),
        (_version(upload), "if it is another bundle"),
        (["datasets", "status", upload.dataset_id], "until ready"),
        (["kernels", "push", "-p", str(upload.kernel)], ""),
    ]
    if wait:
        commands += [(["kernels", "status", upload.kernel_id], "until COMPLETE")]
        commands += [(_output(upload.kernel_id, out), "")]
    return "\n".join(f"kaggle {shlex.join(given)}" + (f"  # {why}" if why else "") for given, why in commands)


def upload_dataset(upload: Upload) -> bool:
    """Create the dataset or a new version and wait until it is ready; return False if Kaggle has this bundle already.

    Raises PackError: Kaggle refuses it, or it is not ready within `ready_limit`.
    """
    for attempt in range(ATTEMPTS):
        state = _wait_while_processing(upload)
        if state and is_uploaded(upload):
            return False
        size = sum(path.stat().st_size for path in upload.dataset.iterdir()) / 1e6
        print(f"{upload.dataset_id}: uploading {size:.1f} MB as a new {'version' if state else 'dataset'}")
        watch = sys.stderr.isatty()
        answer = call_client((_version(upload) if state else _create(upload)) + ([] if watch else ["--quiet"]), watch)
        if answer.fault is None:
            wait_for_dataset(upload)
            return True
        if answer.fault != "transient" or attempt == ATTEMPTS - 1:
            raise _refuse(upload.dataset_id, "Kaggle refused the dataset", answer)
        # Kaggle may have received everything before the connection was lost, so the next round checks first.
        pause = upload.pause * 2**attempt
        print(f"{upload.dataset_id}: {answer.reason}; retry in {pause:.0f} s", file=sys.stderr)
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def read_dataset_state(upload: Upload) -> str | None:
    """Return Kaggle's status of the dataset, such as 'ready'; None if it does not exist.

    Kaggle answers 403 both for a missing dataset and for another user's; `create` fails for the latter.
    """
    answer = ask_client(["datasets", "status", upload.dataset_id], pause=upload.pause)
    if answer.fault in ("absent", "forbidden"):
        return None
    if answer.fault is not None:
        raise _refuse(upload.dataset_id, "cannot read the dataset's status", answer)
    return answer.output.split()[-1].lower()


def is_uploaded(upload: Upload) -> bool:
    """Return whether the dataset on Kaggle has this bundle's manifest, which holds the hash of every file."""
    with tempfile.TemporaryDirectory(prefix="vitrine-") as folder:
        given = ["datasets", "download", upload.dataset_id, "-f", MANIFEST_NAME, "-p", folder]
        answer = ask_client([*given, "--unzip", "--force", "--quiet"], pause=upload.pause)
        fetched = Path(folder, MANIFEST_NAME)
        return answer.fault is None and fetched.is_file() and f"vitrine {hash_file(fetched)}" == upload.notes


def wait_for_dataset(upload: Upload) -> None:
    """Wait until Kaggle has processed this version of the dataset. Raises PackError after `ready_limit`."""

    def ask() -> tuple[str, bool]:
        state = read_dataset_state(upload) or "missing"
        if state in ("failed", "deleted"):
            raise PackError(f"{upload.dataset_id}: Kaggle reports {state}; open the dataset's page, then upload again")
        if state != "ready":
            return state, False
        return ("ready", True) if is_uploaded(upload) else ("ready, but an earlier version", False)

    _poll(upload.dataset_id, ask, upload.ready_limit, upload.pause)


def _wait_while_processing(upload: Upload) -> str | None:
    """Wait until Kaggle has processed the version of an earlier, interrupted upload; return the dataset's state."""
    state = read_dataset_state(upload)
    if state in (None, *SETTLED):
        return state

    def ask() -> tuple[str, bool]:
        now = read_dataset_state(upload) or "deleted"
        return now, now in SETTLED

    return _poll(upload.dataset_id, ask, upload.ready_limit, upload.pause)


def push_kernel(upload: Upload) -> str:
    """Push and so start the notebook; return OWNER/SLUG/VERSION. Raises PackError: Kaggle refuses it."""
    answer = ask_client(["kernels", "push", "-p", str(upload.kernel)], pause=upload.pause)
    if answer.fault is not None:
        raise _refuse(upload.kernel_id, "Kaggle refused the notebook", answer)
    version = _VERSION.search(answer.output)
    return f"{upload.kernel_id}/{version[1]}" if version else upload.kernel_id


def follow_kernel(upload: Upload, pushed: str, out: Path) -> str:
    """Wait for the notebook's end and download its log, run_log.json and submission.csv; return a one-line summary.

    Raises PackError: it failed, or did not end within `run_limit`.
    """
    output = ""

    def ask() -> tuple[str, bool]:
        nonlocal output
        answer = ask_client(["kernels", "status", pushed], pause=upload.pause)
        status = _STATUS.search(answer.output)
        if answer.fault is not None or status is None:
            raise _refuse(pushed, "cannot read the notebook's status", answer)
        output = answer.output
        return status[1].lower(), status[1].lower() in ENDS

    end = _poll(pushed, ask, upload.run_limit, upload.pause)
    make_folder(out)
    answer = ask_client(_output(pushed, out), pause=upload.pause)
    log = out / f"{upload.kernel_id.partition('/')[2]}.log"
    if end != "complete":
        failure = _FAILURE.search(output)
        raise PackError(f"{pushed}: ended with {end}: {failure[1] if failure else 'no message'}; see {log}")
    if answer.fault is not None:
        raise _refuse(pushed, "complete, but its results cannot be downloaded", answer)
    return f"{pushed}: complete, {_describe_run(out / 'run_log.json')}; results in {out}"


def _describe_run(path: Path) -> str:
    try:
        log: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        states = [*log.get("degraded", ()), *log.get("dropped", ())]
        return (
            f"{log['images']} images in {format_seconds(log['seconds']['total'])}, {log['images_per_second']} images/s "
            f"on {', '.join(log['providers'])}" + (f"; DEGRADED: {'; '.join(map(str, states))}" if states else "")
        )
    except (OSError, ValueError, KeyError) as error:
        return f"no readable {path.name} ({type(error).__name__})"


def _poll(what: str, ask: Callable[[], tuple[str, bool]], limit: float, pause: float) -> str:
    started, shown = time.monotonic(), ""
    while True:
        state, done = ask()
        spent = time.monotonic() - started
        if state != shown:
            print(f"{what}: {state} after {format_seconds(spent)}", flush=True)
            shown = state
        if done:
            return state
        if spent + pause > limit:
            raise PackError(
                f"{what}: still {state} after {format_seconds(spent)}; repeat the command later to continue"
            )
        time.sleep(pause)


def _create(upload: Upload) -> list[str]:
    return ["datasets", "create", "-p", str(upload.dataset)]


def _version(upload: Upload) -> list[str]:
    return ["datasets", "version", "-p", str(upload.dataset), "-m", upload.notes]


def _output(kernel: str, out: Path) -> list[str]:
    return ["kernels", "output", kernel, "-p", str(out), "--force", "--file-pattern", RESULTS]


def _refuse(what: str, problem: str, answer: Answer) -> PackError:
    hint = "; are you logged in as its owner, and is your phone number verified?" if answer.fault == "forbidden" else ""
    return PackError(f"{what}: {problem}: {answer.reason}{hint}")
