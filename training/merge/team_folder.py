"""The folder of the team's zoo while it is built: files are linked or copied under names of their own."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from inference.basics.errors import OutputError


class TeamFolder:
    """A folder that gets files of several zoos; every file keeps its name unless another file has it."""

    def __init__(self, folder: Path, *, copy: bool) -> None:
        """`copy`: copy files instead of linking them."""
        self.folder = folder
        self._copy = copy
        self._names: dict[str, Path | None] = {}

    def place(self, source: Path, wanted: str) -> str:
        """Link or copy a file to the relative path `wanted`, or to a similar free one; return that path."""
        origin = source.resolve()
        name = self._find_free(wanted, origin)
        if name not in self._names:
            self._names[name] = origin
            target = self._make_parents(name)
            if self._copy:
                shutil.copyfile(origin, target)
            else:
                link_or_copy(origin, target)
        return name

    def reserve(self, wanted: str) -> tuple[str, Path]:
        """Return a free relative path like `wanted`, and where to write that file."""
        name = self._find_free(wanted, None)
        self._names[name] = None
        return name, self._make_parents(name)

    def _find_free(self, wanted: str, origin: Path | None) -> str:
        path, name, number = PurePosixPath(wanted), wanted, 2
        while name in self._names and (origin is None or self._names[name] != origin):
            name = str(path.with_name(f"{path.stem}_{number}{path.suffix}"))
            number += 1
        return name

    def _make_parents(self, name: str) -> Path:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, which takes no space; a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def build_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out` that becomes `out` at the end, and is removed after a failure.

    Raises OutputError: `out` exists, or cannot be written.
    """
    if out.exists():
        raise OutputError(f"{out}: exists; choose a new folder with --out")
    building = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        yield building
        building.rename(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
