"""What happened, as JSON for later and as one moving line for now."""

import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from inference.basics.errors import DegradedError
from inference.basics.files import replace_file


def join_names(names: Iterable[object]) -> str:
    """'a, b and c'."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


PLAIN_INTERVAL = 5.0  # seconds between lines where nobody watches a terminal
LIVE_INTERVAL = 0.2
TOLD_IMAGES = 20  # unreadable images told one by one; a folder of them should not hide the progress


@dataclass
class RunLog:
    """Facts and seconds collected during a run, and how it is told; `strict`: whatever degrades it is an error."""

    strict: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)  # image id -> reason
    degraded: list[str] = field(default_factory=list)  # what makes the submission valid but less than it could be
    notes: list[str] = field(default_factory=list)  # decisions along the way
    passes: dict[str, list[float]] = field(default_factory=dict)  # model -> [images x views, seconds]

    @contextmanager
    def time_stage(self, stage: str) -> Iterator[None]:
        """Adds the seconds spent inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def note_passes(self, model: str, count: int, seconds: float) -> None:
        """Counts `count` passes of a model, images times views, and their seconds."""
        total = self.passes.setdefault(model, [0.0, 0.0])
        total[0] += count
        total[1] += seconds
        self.seconds["sessions"] = self.seconds.get("sessions", 0.0) + seconds

    def note_unreadable(self, image_id: str, reason: str) -> None:
        """Remembers and tells that an image will get the prior's labels."""
        self.unreadable[image_id] = reason
        count = len(self.unreadable)
        if count <= TOLD_IMAGES:
            print(f"{start_line(sys.stderr)}image {image_id} gets the prior's labels: {reason}", file=sys.stderr)
        elif count == TOLD_IMAGES + 1:
            print(f"{start_line(sys.stderr)}further images like these are listed in run_log.json", file=sys.stderr)

    def note(self, decision: str) -> None:
        """Remembers and tells what was decided along the way."""
        self.notes.append(decision)
        print(f"{start_line(sys.stderr)}{decision}", file=sys.stderr)

    def note_degraded(self, reason: str) -> None:
        """Remembers and tells, loudly, what the submission lacks; where that is not allowed, raises DegradedError."""
        if self.strict:
            raise DegradedError(f"{reason} (--strict)")
        self.degraded.append(reason)
        print(f"{start_line(sys.stderr)}DEGRADED: {reason}", file=sys.stderr)

    def write(self, path: Path) -> None:
        """run_log.json, whole or not at all."""
        document = {
            **self.facts,
            "python": platform.python_version(),
            "passes_per_second": {model: round(count / spent, 2) for model, (count, spent) in self.passes.items()},
            "seconds": {stage: round(spent, 3) for stage, spent in self.seconds.items()},
            "notes": self.notes,
            "degraded": self.degraded,
            "unreadable": self.unreadable,
        }
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


class Progress:
    """Images done, images/s and time left against the limit: one line that moves, or a line every few seconds."""

    def __init__(self, total: int, started: float, time_limit: float, out: TextIO | None = None) -> None:
        """`started`: time.perf_counter() when the clock of the limit began; `time_limit` in seconds."""
        self._total, self._started, self._limit = total, started, time_limit
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._began = self._shown = time.perf_counter()
        self._done = 0

    def advance(self, images: int) -> None:
        """Counts images as done and says so when it is time to."""
        self._done += images
        now = time.perf_counter()
        finished = self._done >= self._total
        if finished or now - self._shown >= (LIVE_INTERVAL if self._live else PLAIN_INTERVAL):
            self._shown = now
            line = describe_progress(self._done, self._total, now - self._began, now - self._started, self._limit)
            self._out.write(start_line(self._out) + line + ("" if self._live and not finished else "\n"))
            self._out.flush()


def start_line(out: TextIO) -> str:
    """What clears the moving line of a terminal; nothing elsewhere."""
    return "\r\x1b[K" if out.isatty() else ""


def describe_progress(done: int, total: int, working: float, elapsed: float, limit: float) -> str:
    """'320/600 images  81.0/s  3 s to go  limit in 8:59:12'; times in seconds, a missed limit in capitals."""
    rate = done / max(working, 1e-9)
    left = limit - elapsed
    clock = f"limit in {format_seconds(left)}" if left >= 0 else f"LIMIT PASSED {format_seconds(-left)} AGO"
    return f"{done}/{total} images  {rate:.1f}/s  {format_seconds((total - done) / rate)} to go  {clock}"


def format_seconds(seconds: float) -> str:
    """h:mm:ss from an hour on, m:ss below."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
