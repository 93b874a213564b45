"""Kaggle's client as a subprocess: its output, the kind of a fault, and retries.

The output is parsed because the client exits 0 when Kaggle refuses a dataset or notebook (kaggle 2.2). Only the client
handles credentials; this module neither reads nor prints nor stores them.
"""

import importlib.util
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Literal

from inference.basics.errors import PackError

Fault = Literal["login", "forbidden", "absent", "transient", "other"]
ATTEMPTS = 5
FIRST_PAUSE = 5.0  # seconds; each further pause is twice as long
# The first pattern that matches names the fault. The client prints its own messages and those of requests.
_FAULTS: tuple[tuple[Fault, str], ...] = (
    ("login", r"Authentication required|401 Client Error|\b401\b.*Unauthorized"),
    ("transient", r"429 Client Error|rate limited|\b50[0234] Server Error"),
    ("forbidden", r"403 Client Error|Permission '\S+' was denied"),
    ("absent", r"404 Client Error"),
    (
        "transient",
        r"Connection ?(aborted|refused|reset|Error)|Max retries exceeded|RemoteDisconnected|IncompleteRead|timed out|"
        r"Upload unsuccessful|Name or service not known|Temporary failure in name resolution",
    ),
)
# Printed with exit code 0.
_REFUSALS = re.compile(
    r"^((?:Dataset (?:version )?creation|Kernel push) error:.*|.*not valid (?:dataset|competition) sources.*)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Answer:
    """Result of one call of the client."""

    output: str
    """Standard output of the client."""
    reason: str
    """Message of the fault; empty after success."""
    fault: Fault | None
    """None after success."""


def call_client(arguments: Sequence[str], watch: bool = False) -> Answer:
    """Run `kaggle ARGUMENTS` once; `watch`: show its progress. Raises PackError: the client is not installed."""
    if importlib.util.find_spec("kaggle") is None:
        raise PackError("Kaggle's client is not installed; run `pip install kaggle six`")
    command = [sys.executable, "-m", "kaggle", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout and process.stderr
        errors: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(process.stderr, errors, watch))
        reader.start()
        output = process.stdout.read().decode(errors="replace")
        reader.join()
    return read_answer(process.returncode, output, b"".join(errors).decode(errors="replace"))


def read_answer(code: int, output: str, errors: str) -> Answer:
    """Parse the exit code, the standard output and the standard error of the client."""
    refusal = _REFUSALS.search(output)
    if code == 0:
        return Answer(output, refusal[1].strip(), "other") if refusal else Answer(output, "", None)
    everything = f"{output}\n{errors}"
    fault: Fault = next((name for name, pattern in _FAULTS if re.search(pattern, everything)), "other")
    # The last error line: lines around it are hints and messages of the client's own retries.
    lines = [line.strip() for line in everything.splitlines() if line.strip()]
    failures = [line for line in lines if re.search(r"Error|error|denied|unsuccessful|Invalid|must|aborted", line)]
    reason = (failures or lines or [f"exit code {code}"])[-1]
    return Answer(output, reason[:300], fault)


def ask_client(arguments: Sequence[str], watch: bool = False, pause: float = FIRST_PAUSE) -> Answer:
    """Call the client; retry after a pause if the fault is transient: 429, 5xx, a lost connection.

    Only for requests that may be repeated. Raises PackError: the client is not installed or not logged in.
    """
    for attempt in range(ATTEMPTS):
        answer = call_client(arguments, watch)
        if answer.fault == "login":
            raise PackError("Kaggle's client is not logged in; run `kaggle auth login`, then repeat this command")
        if answer.fault != "transient" or attempt == ATTEMPTS - 1:
            break
        wait = pause * 2**attempt
        print(f"kaggle {' '.join(arguments[:2])}: {answer.reason}; retry in {wait:.0f} s", file=sys.stderr)
        time.sleep(wait)
    return answer


def _drain(pipe: IO[bytes], kept: list[bytes], watch: bool) -> None:
    while chunk := pipe.read1(4096):  # type: ignore[attr-defined]
        kept.append(chunk)
        if watch:
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
