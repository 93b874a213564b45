"""Kaggle's own client as a subprocess: what it says, what went wrong, and whether to try again.

It is asked in words and answers in words: a refused dataset or notebook still exits 0 (kaggle 2.2), so its answers are
read. Credentials are the client's business; nothing here reads, prints or keeps them.
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
# In order: the first that is found names the fault. The client shows requests' words and its own.
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
# Said with exit code 0.
_REFUSALS = re.compile(
    r"^((?:Dataset (?:version )?creation|Kernel push) error:.*|.*not valid (?:dataset|competition) sources.*)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Answer:
    """What the client said; `fault` is None where it did what it was asked for."""

    said: str
    reason: str
    fault: Fault | None


def call_client(arguments: Sequence[str], watch: bool = False) -> Answer:
    """Run `kaggle ARGUMENTS` once; `watch`: its progress is shown as it comes. Raises PackError without the client."""
    if importlib.util.find_spec("kaggle") is None:
        raise PackError("Kaggle's client is not installed; `pip install kaggle six` brings it")
    command = [sys.executable, "-m", "kaggle", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout and process.stderr
        errors: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(process.stderr, errors, watch))
        reader.start()
        said = process.stdout.read().decode(errors="replace")
        reader.join()
    return read_answer(process.returncode, said, b"".join(errors).decode(errors="replace"))


def read_answer(code: int, said: str, errors: str) -> Answer:
    """The answer in an exit code and what was written to the two outputs."""
    refusal = _REFUSALS.search(said)
    if code == 0 and not refusal:
        return Answer(said, "", None)
    if code == 0 and refusal:
        return Answer(said, refusal[1].strip(), "other")
    everything = f"{said}\n{errors}"
    fault: Fault = next((name for name, pattern in _FAULTS if re.search(pattern, everything)), "other")
    # The last thing that it failed with; hints and the client's own retries stand around it.
    lines = [line.strip() for line in everything.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"Error|error|denied|unsuccessful|Invalid|must|aborted", line)]
    reason = (telling or lines or [f"exit code {code}"])[-1]
    return Answer(said, reason[:300], fault)


def ask_client(arguments: Sequence[str], watch: bool = False, pause: float = FIRST_PAUSE) -> Answer:
    """As `call_client`, again after a pause where the fault passes by itself: 429, 5xx, a lost connection.

    Only for what may be asked twice. Raises PackError where the client is not logged in.
    """
    for attempt in range(ATTEMPTS):
        answer = call_client(arguments, watch)
        if answer.fault == "login":
            raise PackError("Kaggle's client is not logged in; run `kaggle auth login` and then this again")
        if answer.fault != "transient" or attempt == ATTEMPTS - 1:
            break
        wait = pause * 2**attempt
        print(f"kaggle {' '.join(arguments[:2])}: {answer.reason}; again in {wait:.0f} s", file=sys.stderr)
        time.sleep(wait)
    return answer


def _drain(pipe: IO[bytes], kept: list[bytes], watch: bool) -> None:
    while chunk := pipe.read1(4096):  # type: ignore[attr-defined]
        kept.append(chunk)
        if watch:
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
