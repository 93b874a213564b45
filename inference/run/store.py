"""Predictions and progress on disk, chunk by chunk: a killed run loses only the chunk in progress.

The work folder has `run.json` (identity of the run), `chunks.data` (rows of the arrays) and `chunks.jsonl` (one line
per chunk: its mark). The last two are only appended to. The rows of a chunk are on the disk before its mark, so data
after the last complete mark belongs to an interrupted write and is cut off.
"""

import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import OutputError, StoreError
from inference.basics.files import make_folder, replace_file

Arrays = Mapping[str, NDArray[np.floating[Any]]]  # name -> (images, columns); NaN where unknown
Mark = dict[str, Any]
RUN, DATA, MARKS = "run.json", "chunks.data", "chunks.jsonl"
MARKS_SHARE, MARKS_BYTES = 50, 65536  # marks take less than 1/50 of the rows, plus these bytes


class Store:
    """The work folder of one run, and the arrays saved there; `marks`: of the saved chunks."""

    def __init__(self, folder: Path, identity: Mapping[str, str], arrays: Arrays, fresh: bool = False) -> None:
        """Open or create `folder`; fill the saved rows into `arrays`.

        `identity`: name in messages -> value that must be equal for a run to be continued; `fresh`: delete saved rows.
        Raises StoreError: the folder is of another run, damaged or in use. Raises OutputError: it cannot be written.
        """
        self.folder, self._arrays = folder, arrays
        self.marks: list[Mark] = []
        declared = dict(identity) | {
            f"array {name}": f"{array.dtype.str} {array.shape}" for name, array in arrays.items()
        }
        with ExitStack() as opened:
            try:
                make_folder(folder)
                self._data, self._lines = (
                    opened.enter_context((folder / name).open("ab+", buffering=0)) for name in (DATA, MARKS)
                )
                self._lock()
                if fresh:
                    self._cut(0, 0)
                    (folder / RUN).unlink(missing_ok=True)
                if (folder / RUN).exists():
                    self._check_identity(declared)
                    self._read()
                else:
                    self._cut(0, 0)
                    with replace_file(folder / RUN) as temporary, temporary.open("wb") as file:
                        _append(file, json.dumps(declared, indent=2).encode())
                    _sync_folder(folder)
            except OSError as error:
                raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
            opened.pop_all()

    def measure_need(self) -> int:
        """Return the bytes that the rest of a run adds: every row of every array once, and the marks."""
        rows = sum(array.nbytes for array in self._arrays.values())
        return max(rows + rows // MARKS_SHARE - (self.folder / DATA).stat().st_size, 0) + MARKS_BYTES

    def commit(self, start: int, stop: int, names: Sequence[str], facts: Mark) -> None:
        """Write the rows of the named arrays and then their mark, which includes `facts`, to the disk.

        Raises OutputError: writing fails. Chunks saved before stay valid, but this run must not commit again.
        """
        rows = b"".join(np.ascontiguousarray(self._arrays[name][start:stop]).tobytes() for name in names)
        mark = {"start": start, "stop": stop, "arrays": list(names), "crc": zlib.crc32(rows), **facts}
        line = (json.dumps(mark) + "\n").encode()  # first, so that only the disk can fail after the rows
        try:
            _append(self._data, rows)
            _append(self._lines, line)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}") from error
        self.marks.append(mark)

    def close(self) -> None:
        """Close the files; committed chunks stay for the next run."""
        self._data.close()
        self._lines.close()

    def remove(self) -> None:
        """Close the files and delete the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._data, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{self.folder}: in use by another run; wait for it or choose another --out") from None

    def _check_identity(self, declared: Mapping[str, str]) -> None:
        try:
            found = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        except ValueError:
            raise self._refuse_damage(f"{RUN} is not JSON") from None
        for name in dict.fromkeys([*declared, *found]):
            if found.get(name) != declared.get(name):
                raise StoreError(
                    f"{self.folder}: found a run with another {name}; use --fresh to start over, or restore that {name}"
                )

    def _read(self) -> None:
        """Fill the arrays from the chunks that have a mark; cut off the data after the last mark."""
        self._lines.seek(0)
        self._data.seek(0)
        read = 0
        for number, line in enumerate(self._lines.read().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            try:
                mark: Mark = json.loads(line)
                self._fill(mark)
            except (ValueError, KeyError, TypeError):
                raise self._refuse_damage(f"line {number} of {MARKS} does not fit {DATA}") from None
            self.marks.append(mark)
            read += len(line)
        self._cut(self._data.tell(), read)

    def _fill(self, mark: Mark) -> None:
        rows = slice(mark["start"], mark["stop"])
        parts = [self._arrays[name][rows] for name in mark["arrays"]]
        content = self._data.read(sum(part.nbytes for part in parts))
        if zlib.crc32(content) != mark["crc"]:
            raise ValueError("damaged")
        offset = 0
        for part in parts:
            part[...] = np.frombuffer(content, part.dtype, part.size, offset).reshape(part.shape)
            offset += part.nbytes

    def _cut(self, data: int, lines: int) -> None:
        self._data.truncate(data)
        self._lines.truncate(lines)

    def _refuse_damage(self, detail: str) -> StoreError:
        return StoreError(f"{self.folder}: damaged: {detail}; use --fresh to start over")


def _append(file: Any, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
