"""Predictions and progress on disk, chunk by chunk: a run that is killed loses the chunk in flight and nothing else.

The work folder holds `run.json` (what run this is), `chunks.data` (rows of arrays, one chunk after another) and
`chunks.jsonl` (a line a chunk: its mark). Both only grow. A chunk's rows are on the disk before its mark is written,
so whatever follows the last whole mark is what the kill cut short, and is cut off.
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

Arrays = Mapping[str, NDArray[np.floating[Any]]]  # name -> (images, columns); NaN where nothing is known
Mark = dict[str, Any]
RUN, DATA, MARKS = "run.json", "chunks.data", "chunks.jsonl"
MARKS_SHARE, MARKS_BYTES = 50, 65536  # marks take less than a fiftieth of the rows and this


class Store:
    """The work folder of one run and the arrays that it keeps; `marks`: those of the chunks that are there."""

    def __init__(self, folder: Path, identity: Mapping[str, str], arrays: Arrays, fresh: bool = False) -> None:
        """Continue what is in `folder`, or begin it; rows that are there are filled into `arrays`.

        `identity`: what must be the same for a run to be continued, by what it is called in a message; `fresh`: begin
        anew whatever is there. Raises StoreError where it is another run, is damaged or is in use, and OutputError
        where it cannot be written.
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
        """Bytes that the rest of a run adds at least: every row of every array once, and the marks."""
        rows = sum(array.nbytes for array in self._arrays.values())
        return max(rows + rows // MARKS_SHARE - (self.folder / DATA).stat().st_size, 0) + MARKS_BYTES

    def commit(self, start: int, stop: int, names: Sequence[str], facts: Mark) -> None:
        """Put the rows of the named arrays and then their mark, which carries `facts`, on the disk.

        Raises OutputError where the disk does not take them: what was there before stays good for the next run, and
        this run can commit no more.
        """
        rows = b"".join(np.ascontiguousarray(self._arrays[name][start:stop]).tobytes() for name in names)
        mark = {"start": start, "stop": stop, "arrays": list(names), "crc": zlib.crc32(rows), **facts}
        line = (json.dumps(mark) + "\n").encode()  # before the rows are written: from there on nothing may be lacking
        try:
            _append(self._data, rows)
            _append(self._lines, line)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}") from error
        self.marks.append(mark)

    def close(self) -> None:
        """Let go of the files; what is committed stays for the next run."""
        self._data.close()
        self._lines.close()

    def remove(self) -> None:
        """Close, and delete the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._data, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{self.folder}: in use by another run; wait for its end or name another --out") from None

    def _check_identity(self, declared: Mapping[str, str]) -> None:
        try:
            found = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        except ValueError:
            raise self._refuse_damage(f"{RUN} is not JSON") from None
        for name in dict.fromkeys([*declared, *found]):
            if found.get(name) != declared.get(name):
                raise StoreError(
                    f"{self.folder}: was begun with another {name}; run with --fresh to start over, or bring that back"
                )

    def _read(self) -> None:
        """Fill the arrays from the chunks that have a mark; cut off what follows the last."""
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
        return StoreError(f"{self.folder}: damaged: {detail}; run with --fresh to start over")


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
