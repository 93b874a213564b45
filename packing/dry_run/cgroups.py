"""A cgroup of Linux that holds processes to an amount of memory, where this system lets us make one."""

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
    """One version of cgroups: its file system and controller, and what it calls memory's limit, swap's, and kills.

    `controller`: in whose tree the limit is, empty where there is one tree for all; `without_swap`: swap's limit.
    """

    name: str
    controller: str
    memory: str
    swap: str
    without_swap: str
    kills: str


# Linux's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. The first counts swap apart, the second with memory.
VERSIONS = (
    Version("cgroup2", "", "memory.max", "memory.swap.max", "0", "memory.events"),
    Version(
        "cgroup", "memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "{memory}", "memory.oom_control"
    ),
)


@dataclass(frozen=True)
class Group:
    """A cgroup that we made."""

    folder: Path
    version: Version

    @property
    def entrance(self) -> Path:
        """The file that takes the ids of processes."""
        return self.folder / "cgroup.procs"

    def count_kills(self) -> int:
        """Processes that the system ended because all together passed the limit."""
        found = re.search(r"^oom_kill (\d+)$", (self.folder / self.version.kills).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


@contextlib.contextmanager
def make_group(memory: int) -> Iterator[Group | None]:
    """A cgroup of `memory` bytes without swap, None where there cannot be one; its processes end with it.

    Raises RehearsalError where it stays busy after they were killed.
    """
    group = next((group for version, parent in _find_parents() if (group := _try_group(version, parent, memory))), None)
    try:
        yield group
    finally:
        if group:
            _end_group(group)


def _find_parents() -> Iterator[tuple[Version, Path]]:
    # Below our own cgroup, or beside it: in version 2, one that has processes cannot be divided.
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
        # That it can be made does not say that a process may go in.
        subprocess.run(["sh", "-c", 'echo $$ > "$1"', "sh", group.entrance], stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        _end_group(group)
        return None
    return group


def _write(path: Path, text: str) -> None:
    with path.open("r+", encoding="ascii") as file:  # which makes no file that is not there
        file.write(text)


def _end_group(group: Group) -> None:
    stop = time.monotonic() + END_SECONDS
    while True:
        for process in map(int, group.entrance.read_text().split()):
            if process > 0:  # 0 stands for one that we cannot see, and to kill 0 would mean ourselves
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        try:
            group.folder.rmdir()
            return
        except OSError as error:
            if time.monotonic() > stop:
                raise RehearsalError(
                    f"{group.folder}: cannot be removed: {error.strerror}; remove it by hand"
                ) from error
        time.sleep(0.05)
