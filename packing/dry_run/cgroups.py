"""A Linux cgroup that limits the memory of processes, on systems that permit it."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import RehearsalError

MOUNTS, OWN = Path("/proc/self/mounts"), Path("/proc/self/cgroup")
END_SECONDS = 10.0


@dataclass(frozen=True)
class Version:
    """Names in one version of cgroups."""

    name: str
    """Type of the file system."""
    controller: str
    """Controller whose tree has the limit; empty if all share one tree."""
    memory: str
    """File of the memory limit."""
    swap: str
    """File of the swap limit."""
    without_swap: str
    """Swap limit that forbids swapping."""
    kills: str
    """File with the number of kills."""


# From Linux's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. Version 2 counts swap alone, version 1 with memory.
VERSIONS = (
    Version("cgroup2", "", "memory.max", "memory.swap.max", "0", "memory.events"),
    Version(
        "cgroup", "memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "{memory}", "memory.oom_control"
    ),
)


@dataclass(frozen=True)
class Group:
    """A cgroup made by this module."""

    folder: Path
    version: Version

    @property
    def entrance(self) -> Path:
        """The file to write the ids of processes to."""
        return self.folder / "cgroup.procs"

    def count_kills(self) -> int:
        """Return the number of processes that the kernel killed at the memory limit."""
        found = re.search(r"^oom_kill (\d+)$", (self.folder / self.version.kills).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


@contextlib.contextmanager
def make_group(memory: int) -> Iterator[Group | None]:
    """Make a cgroup of `memory` bytes without swap, or None if the system forbids it; kill its processes at the end.

    Raises RehearsalError: the cgroup cannot be removed after that.
    """
    group = next((group for version, parent in _find_parents() if (group := _try_group(version, parent, memory))), None)
    try:
        yield group
    finally:
        if group:
            _end_group(group)


def _find_parents() -> Iterator[tuple[Version, Path]]:
    # Below this process's cgroup, or beside it: in version 2, a cgroup with processes cannot have children.
    if not (MOUNTS.is_file() and OWN.is_file()):
        return
    mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
    memberships = [line.split(":", 2) for line in OWN.read_text().splitlines()]
    for version in VERSIONS:
        trees = [
            Path(place)
            for _, place, kind, options, *_ in mounts
            if kind == version.name and version.controller in ("", *options.split(","))
        ]
        paths = [path.lstrip("/") for _, names, path in memberships if version.controller in names.split(",")]
        for tree, path in zip(trees[:1], paths, strict=False):
            yield version, tree / path
            if path:
                yield version, (tree / path).parent


def _try_group(version: Version, parent: Path, memory: int) -> Group | None:
    try:
        group = Group(Path(tempfile.mkdtemp(prefix="vitrine-", dir=parent)), version)
    except OSError:
        return None
    try:
        _write(group.folder / version.memory, str(memory))
        if (group.folder / version.swap).exists():
            _write(group.folder / version.swap, version.without_swap.format(memory=memory))
        # A process may be refused even where the cgroup can be made.
        subprocess.run(["sh", "-c", 'echo $$ > "$1"', "sh", group.entrance], stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        _end_group(group)
        return None
    return group


def _write(path: Path, text: str) -> None:
    with path.open("r+", encoding="ascii") as file:  # does not create the file
        file.write(text)


def _end_group(group: Group) -> None:
    stop = time.monotonic() + END_SECONDS
    while True:
        for process in map(int, group.entrance.read_text().split()):
            if process > 0:  # 0: not visible from here; kill(0) would kill this process's group
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        try:
            group.folder.rmdir()
            return
        except OSError as error:
            if time.monotonic() > stop:
                raise RehearsalError(
                    f"{group.folder}: cannot be removed: {error.strerror}; remove it manually"
                ) from error
        time.sleep(0.05)
