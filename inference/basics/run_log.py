"""The log of a run: messages and a progress line on stderr, and run_log.json."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from inference.basics.deadline import Deadline
from inference.basics.errors import DegradedError
from inference.basics.files import replace_file


def join_names(names: Iterable[object]) -> str:
    """Join at least one name, as in 'a, b and c'."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


PLAIN_INTERVAL = 5.0  # seconds between progress lines in a file or a pipe
LIVE_INTERVAL = 0.2  # seconds between updates of the line in a terminal
SHOWN_IMAGES = 20  # unreadable images printed one by one; more would hide the progress


@dataclass
class RunLog:
    """What is recorded during a run, printed to stderr at once and written to run_log.json."""

    strict: bool = False
    """Raise DegradedError where the submission would be degraded."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further keys of run_log.json."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Run time of each stage."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Image id -> reason."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Image id -> what is wrong with its file, of which all or most could be read."""
    degraded: list[str] = field(default_factory=list)
    """Reasons why the submission is valid but worse than it could be."""
    notes: list[str] = field(default_factory=list)
    """Decisions made during the run."""
    passes: dict[str, list[float]] = field(default_factory=dict)
    """Model -> [images times views, seconds]."""

    @contextmanager
    def time_stage(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside the context to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def note_passes(self, model: str, count: int, seconds: float) -> None:
        """Add `count` passes of a model (images × views) and their seconds."""
        total = self.passes.setdefault(model, [0.0, 0.0])
        total[0] += count
        total[1] += seconds
        self.seconds["sessions"] = self.seconds.get("sessions", 0.0) + seconds

    def note_unreadable(self, image_id: str, reason: str) -> None:
        """Record and print that an image gets the prior labels."""
        self.unreadable[image_id] = reason
        count = len(self.unreadable)
        if count <= SHOWN_IMAGES:
            say(f"image {image_id} gets the prior labels: {reason}", sys.stderr)
        elif count == SHOWN_IMAGES + 1:
            say("run_log.json lists all further unreadable images", sys.stderr)

    def note(self, decision: str) -> None:
        """Record and print a decision."""
        self.notes.append(decision)
        say(decision, sys.stderr)

    def note_degraded(self, reason: str) -> None:
        """Record and print why the submission is degraded. Raises DegradedError: `strict`."""
        if self.strict:
            raise DegradedError(f"{reason} (--strict)")
        self.degraded.append(reason)
        say(f"DEGRADED: {reason}", sys.stderr)

    def write(self, path: Path) -> None:
        """Write run_log.json atomically. Raises OutputError."""
        document = {
            **self.facts,
            "python": platform.python_version(),
            "passes_per_second": {model: round(count / spent, 2) for model, (count, spent) in self.passes.items()},
            "seconds": {stage: round(spent, 3) for stage, spent in self.seconds.items()},
            "notes": self.notes,
            "degraded": self.degraded,
            "unreadable": self.unreadable,
            "damaged": self.damaged,
        }
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


class Progress:
    """Images done, images/s and the time left: one updated line in a terminal, else one line every few seconds."""

    def __init__(self, total: int, deadline: Deadline, out: TextIO | None = None) -> None:
        """`total`: number of images."""
        self._total, self._deadline = total, deadline
        self._out: TextIO | None = out or sys.stderr
        self._live = bool(start_line(self._out))
        self._began = self._shown = time.perf_counter()
        self._done = 0

    def advance(self, images: int) -> None:
        """Add images that are done; print the progress if the interval has passed."""
        self._done += images
        now = time.perf_counter()
        finished = self._done >= self._total
        if finished or now - self._shown >= (LIVE_INTERVAL if self._live else PLAIN_INTERVAL):
            self._shown = now
            line = describe_progress(self._done, self._total, now - self._began, self._deadline.left())
            say(line, self._out, end="" if self._live and not finished else "\n")


def say(text: str, stream: TextIO | None, end: str = "\n") -> None:
    """Print a message in place of the progress line; `stream`: sys.stdout or sys.stderr, None if it is closed.

    Never fails, as no message is worth the run: a stream that takes nothing (closed, full, a pipe without a reader)
    loses the message, and characters that its encoding lacks are printed as escapes.
    """
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    printable = text.encode(encoding, "backslashreplace").decode(encoding)
    with suppress(OSError, ValueError):  # ValueError: closed by Python
        stream.write(f"{start_line(stream)}{printable}{end}")
        stream.flush()


def start_line(out: TextIO | None) -> str:
    """Return the control code that clears the progress line of a terminal; empty for other outputs."""
    try:
        return "\r\x1b[K" if out is not None and out.isatty() else ""
    except ValueError:  # closed by Python
        return ""


def drop_unsaid() -> None:
    """Discard what stdout and stderr could not take: the interpreter would fail at its exit, with exit code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with suppress(OSError), Path(os.devnull).open("wb") as null:
                os.dup2(null.fileno(), stream.fileno())
        except ValueError:  # closed by Python, which then flushes nothing
            continue


def describe_progress(done: int, total: int, working: float, left: float) -> str:
    """Format the progress line, as in '320/600 images  80.0/s  done in 0:04  time limit in 8:59:12'.

    `working`: seconds spent on the images that are done; `left`: seconds before the deadline.
    """
    rate = done / max(working, 1e-9)
    clock = f"time limit in {format_seconds(left)}" if left >= 0 else f"TIME LIMIT PASSED {format_seconds(-left)} AGO"
    return f"{done}/{total} images  {rate:.1f}/s  done in {format_seconds((total - done) / rate)}  {clock}"


def format_seconds(seconds: float) -> str:
    """Format as h:mm:ss from one hour on, as m:ss below."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
