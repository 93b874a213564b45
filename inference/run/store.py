"""Predictions and progress on disk, chunk by chunk: a killed run loses only the chunk in progress.

The work folder has `run.json` (identity of the run), `chunks.data` (rows of the arrays) and `chunks.jsonl` (one line
per commit). The last two are only appended to, and the rows of a commit are on the disk before its line. A line has
checksums of itself and of its rows, and names the run, the place of the rows, and the commit before it of the same
images. So damage of any kind costs only the commits that it touches and those that build on them: they are dropped when
the folder is opened, and the run predicts them again.
"""

import fcntl
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import InputError, ManifestError, OutputError, StoreError
from inference.basics.files import append_bytes, make_folder, open_regular, replace_file, sync_folder
from inference.basics.seal import seal, unseal
from inference.manifest.schema import parse_record

Arrays = Mapping[str, NDArray[Any]]  # name -> (images, columns); NaN where unknown
Mark = dict[str, Any]  # what the run saves with a commit
RUN, DATA, MARKS = "run.json", "chunks.data", "chunks.jsonl"
MARKS_SHARE, MARKS_BYTES = 50, 65536  # the lines take less than 1/50 of the rows, plus these bytes
LONGEST_LINE = 1 << 24  # bytes; a longer line is damaged


@dataclass(frozen=True)
class Commit:
    """A line of chunks.jsonl."""

    run: str
    """Digest of the identity of its run."""
    files: str
    """State of the image files."""
    start: int
    """First row of the arrays."""
    stop: int
    """Row after the last."""
    arrays: tuple[str, ...]
    """Names of the arrays, in the order of their rows in chunks.data."""
    offset: int
    """Place of the rows in chunks.data."""
    crc: int
    """Of the rows."""
    after: str
    """Digest of the line before this one of the same rows; empty for their first."""
    mark: Mark = field(default_factory=dict)


@dataclass(frozen=True)
class Checks:
    """What the run knows about its images and marks."""

    describe_files: Callable[[int, int], str] = lambda start, stop: ""
    """State of the image files of some rows: a text that differs after they were changed."""
    accept: Callable[[int, int, Mark], bool] = lambda start, stop, mark: True
    """Whether a commit of some rows may have this mark."""


NO_CHECKS = Checks()


class Store:
    """The work folder of one run, and the arrays saved there."""

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, str],
        arrays: Arrays,
        fresh: bool = False,
        checks: Checks = NO_CHECKS,
    ) -> None:
        """Open or create `folder`; fill the saved rows into `arrays`.

        `identity`: name in messages -> value that must be equal for a run to be continued; `fresh`: delete saved rows.
        Raises StoreError: the folder is of another run or in use. Raises OutputError: it cannot be written.
        """
        self.folder, self._arrays, self._checks = folder, arrays, checks
        self.marks: list[Mark] = []
        """Of the saved commits."""
        self.damaged = self.changed = 0
        """Saved chunks that were dropped: damaged, or of images whose files were changed since."""
        self.resumed = False
        """An earlier run has not come to its end, whether it has saved chunks or not."""
        shapes = {f"array {name}": f"{array.dtype.str} {array.shape}" for name, array in arrays.items()}
        declared = {**identity, **shapes}
        self._run = _digest(json.dumps(declared, sort_keys=True).encode())
        self._owners = np.full(min(map(len, arrays.values())), -1)  # row -> first row of its commits
        self._last: dict[tuple[int, int], str] = {}  # start and stop -> digest of their last line
        self._used = 0  # bytes of the rows of all saved commits
        with ExitStack() as opened:
            try:
                self._data = opened.enter_context(self._open_locked())
                self._lines = opened.enter_context(self._open(MARKS))
                found = None if fresh else self._read_identity()
                if found is not None:
                    self._check_identity(declared, found)
                    self.resumed = True
                if fresh:
                    self._lines.truncate(0)
                self._read()
                if found is None:
                    self._replace(RUN, seal(declared))
            except OSError as error:
                raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
            opened.pop_all()

    def measure_need(self) -> int:
        """Return the bytes that the rest of a run adds: every row of every array once, and the lines."""
        rows = sum(array.nbytes for array in self._arrays.values())
        return max(rows + rows // MARKS_SHARE - self._used, 0) + MARKS_BYTES

    def commit(self, start: int, stop: int, names: Sequence[str], mark: Mark) -> None:
        """Write the rows of the named arrays and then their line, with the mark, to the disk.

        Raises OutputError: writing fails. Chunks saved before stay valid, but this run must not commit again.
        """
        rows = b"".join(np.ascontiguousarray(self._arrays[name][start:stop]).tobytes() for name in names)
        files, after = self._checks.describe_files(start, stop), self._last.get((start, stop), "")
        try:
            offset = self._data.seek(0, os.SEEK_END)
            commit = Commit(self._run, files, start, stop, tuple(names), offset, zlib.crc32(rows), after, mark)
            line = seal(asdict(commit))  # first, so that only the disk can fail after the rows
            append_bytes(self._data, rows)
            append_bytes(self._lines, line)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}") from error
        self._note(commit, line, len(rows))

    def close(self) -> None:
        """Close the files; committed chunks stay for the next run."""
        self._data.close()
        self._lines.close()

    def remove(self) -> None:
        """Delete the files, and the folder if it has no others; close the files."""
        for name in (MARKS, DATA, RUN):
            with suppress(OSError):
                (self.folder / name).unlink()
        with suppress(OSError):
            self.folder.rmdir()
        self.close()  # last, as this unlocks the folder

    def _open_locked(self) -> FileIO:
        while True:
            make_folder(self.folder)
            file = self._open(DATA)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.close()
                if isinstance(error, BlockingIOError):
                    fault = f"{self.folder}: in use by another run; wait for it or choose another --out"
                    raise StoreError(fault) from None
                raise
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # another run has removed it in the meantime

    def _open(self, name: str) -> FileIO:
        path = self.folder / name
        remedy = f"delete {self.folder} or choose another --out"
        try:
            # No link is followed: the file that it names is none of the run's.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(path, flags, 0o666)
        except OSError as error:
            raise OutputError(f"{path}: cannot be opened: {error.strerror or error}; {remedy}") from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OutputError(f"{path}: is a device or pipe; {remedy}")
        return FileIO(handle, "ab+")

    def _read_identity(self) -> dict[str, Any] | None:
        """Return the content of run.json; None if it is missing or damaged."""
        try:
            with open_regular(self.folder / RUN) as file:
                return unseal(file.read(LONGEST_LINE))
        except InputError:
            return None

    def _check_identity(self, declared: Mapping[str, str], found: Mapping[str, Any]) -> None:
        for name in dict.fromkeys([*declared, *found]):
            if found.get(name) != declared.get(name):
                raise StoreError(
                    f"{self.folder}: found a run with another {name}; use --fresh to start over, or restore that {name}"
                )

    def _read(self) -> None:
        """Fill the arrays from the valid commits of this run; cut off everything else."""
        own: dict[bytes, Commit] = {}  # a doubled line counts once
        kept: list[bytes] = []
        damaged, changed, end = set[object](), set[object](), 0
        with open_regular(self.folder / MARKS) as file:
            for line in iter(partial(file.readline, LONGEST_LINE), b""):
                found = _parse_commit(line)
                if found is None and line.endswith(b"\n"):  # not the last line, which a kill has cut
                    damaged.add(_digest(line))
                elif found and found.run == self._run:
                    own[line] = found
        for line, commit in sorted(own.items(), key=lambda pair: pair[1].offset):
            rows = commit.start, commit.stop
            content = self._read_rows(commit)
            if content is None:
                damaged.add(rows)
            elif commit.files != self._checks.describe_files(*rows):
                changed.add(rows)
            elif commit.after != self._last.get(rows, ""):
                damaged |= {rows} - changed
            else:
                self._fill(commit, content)
                self._note(commit, line, len(content))
                kept.append(line)
                end = max(end, commit.offset + len(content))
        self.damaged, self.changed = len(damaged), len(changed)
        if self._lines.seek(0, os.SEEK_END) != sum(map(len, kept)):
            self._replace(MARKS, b"".join(kept))
            self._lines.close()
            self._lines = self._open(MARKS)
        self._data.truncate(end)

    def _read_rows(self, commit: Commit) -> bytes | None:
        """Return the rows of a commit; None if they are damaged, or the commit is none that this run makes."""
        start, stop, names = commit.start, commit.stop, commit.arrays
        if not (0 <= start < stop <= len(self._owners) and len(set(names)) == len(names) and commit.offset >= 0):
            return None
        if not set(names) <= set(self._arrays) or not self._checks.accept(start, stop, commit.mark):
            return None
        owner = start if (start, stop) in self._last else -1
        if (self._owners[start:stop] != owner).any():  # other commits overlap with its rows
            return None
        size = sum(self._arrays[name][start:stop].nbytes for name in names)
        if commit.offset + size > os.fstat(self._data.fileno()).st_size:
            return None
        try:
            content = os.pread(self._data.fileno(), size, commit.offset)
        except OSError:  # a damaged disk
            return None
        return content if len(content) == size and zlib.crc32(content) == commit.crc else None

    def _fill(self, commit: Commit, content: bytes) -> None:
        offset = 0
        for name in commit.arrays:
            part = self._arrays[name][commit.start : commit.stop]
            part[...] = np.frombuffer(content, part.dtype, part.size, offset).reshape(part.shape)
            offset += part.nbytes

    def _note(self, commit: Commit, line: bytes, size: int) -> None:
        self.marks.append(commit.mark)
        self._owners[commit.start : commit.stop] = commit.start
        self._last[commit.start, commit.stop] = _digest(line)
        self._used += size

    def _replace(self, name: str, content: bytes) -> None:
        with replace_file(self.folder / name) as temporary, temporary.open("wb", buffering=0) as file:
            append_bytes(file, content)
        sync_folder(self.folder)


def _parse_commit(line: bytes) -> Commit | None:
    document = unseal(line) or {}
    mark = document.pop("mark", None)
    try:
        commit: Commit = parse_record(Commit, document)
    except ManifestError:
        return None
    return replace(commit, mark=mark) if isinstance(mark, dict) else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
