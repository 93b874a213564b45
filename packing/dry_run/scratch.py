"""The temporary folder of a dry run, which the next dry run removes if this one is killed."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from inference.basics.errors import RehearsalError

MARKER = ".vitrine-dry-run"  # locked as long as the dry run is alive


@contextlib.contextmanager
def make_scratch(out: Path, prefix: str) -> Iterator[Path]:
    """Make a temporary folder in `out`; remove it at the end, and before that those of killed dry runs.

    Raises RehearsalError: one of those cannot be removed.
    """
    _remove_leftovers(out)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=out) as temporary:
        folder = Path(temporary).resolve()
        new = folder / f"{MARKER}.new"
        with new.open("w") as marker:
            _lock(marker.fileno())
            new.rename(folder / MARKER)  # locked before another dry run can find it
            yield folder


def _remove_leftovers(out: Path) -> None:
    for found in sorted(out.glob(f"*/{MARKER}")):
        try:
            with found.open("r+") as marker:
                if _lock(marker.fileno()):
                    shutil.rmtree(found.parent)
                    print(f"note: {found.parent}: removed; a killed dry run left it")
        except FileNotFoundError:  # another dry run has just removed it
            continue
        except OSError as error:
            raise RehearsalError(
                f"{found.parent}: left by a killed dry run and cannot be removed: {error.strerror}; remove it manually"
            ) from error


def _lock(file: int) -> bool:
    """Lock an open file until it is closed; return False if it is in use or the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
