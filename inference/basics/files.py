"""Reading of regular files, atomic writing, and hashes."""

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, FileIO
from pathlib import Path

from inference.basics.errors import InputError, OutputError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.vitrine-tmp", re.DOTALL)  # names of temporary files


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a file for reading. A device or pipe is refused, as reading it may never end.

    Raises InputError: the file is missing, not a regular file, or fails while it is open here.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{path}: is a device or pipe; wanted a regular file")
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """Return the text of a regular file. Raises InputError: it cannot be read, or is not UTF-8."""
    with open_regular(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


@contextmanager
def hold_temporary(path: Path) -> Iterator[Path]:
    """Yield a new empty file in the folder of `path`; delete it at the end, unless it was renamed.

    Its lock tells `remove_leftovers` that it is in use: the system unlocks it when the process ends. Raises OutputError
    with the name of `path`: no file can be created there, or writing fails.
    """
    try:
        temporary, handle = _create_locked(path)
        try:
            yield temporary
        finally:
            # On a read-only file system deleting fails too; only the first error is reported.
            with suppress(OSError):
                temporary.unlink()
            os.close(handle)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; replace `path` with it at the end, or delete it after an error.

    Raises OutputError: `path` cannot be written.
    """
    with hold_temporary(path) as temporary:
        yield temporary
        os.replace(temporary, path)


def append_bytes(file: FileIO, content: bytes) -> None:
    """Write to the end of an unbuffered file, and wait until it is on the disk. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names of new files in a folder are on the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder, as far as the system allows."""
    with suppress(OSError):
        for path in folder.iterdir():
            if TEMPORARY.fullmatch(path.name):
                _remove_unlocked(path)


def make_folder(path: Path) -> None:
    """Create the folder and its parents; delete the temporary files of killed processes there.

    Raises OutputError: the system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot create the folder: {error.strerror or error}") from error
    remove_leftovers(path)


def hash_file(path: Path) -> str:
    """Return the sha256 of a regular file, in hexadecimal. Raises InputError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_texts(texts: Iterable[str]) -> str:
    """Return the sha256 of the texts, one per line, in hexadecimal."""
    return hashlib.sha256("".join(f"{text}\n" for text in texts).encode()).hexdigest()


def _create_locked(path: Path) -> tuple[Path, int]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.vitrine-tmp")
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        with suppress(OSError):  # a file system without locks; leftovers stay there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return temporary, handle
        os.close(handle)  # another process deleted it before it was locked


def _remove_unlocked(path: Path) -> None:
    with suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(handle)


def _open_at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)  # does not wait for the writer of a pipe
