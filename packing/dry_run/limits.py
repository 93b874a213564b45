"""The limits of a Kaggle machine that a dry run enforces: CPUs, memory, size of a file."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packing.dry_run.cgroups import Group, make_group

ENTER = Path(__file__).with_name("hold_limits.py")
GB = 10**9


@dataclass(frozen=True)
class Limits:
    """Limits of a machine."""

    cpus: int
    memory: int
    """Bytes, for all processes together."""
    file: int
    """Bytes, of the largest file."""


# 4 vCPUs and about 31 GB with any accelerator. /kaggle/working has 20 GB; only the size of one file can be limited.
KERNEL = Limits(cpus=4, memory=31 * GB, file=20 * GB)


@dataclass(frozen=True)
class Held:
    """A command prefix that enforces limits."""

    description: str
    prefix: tuple[str, ...]
    group: Group | None = None
    """The cgroup of the command; None if the system forbids cgroups."""

    def count_kills(self) -> int:
        """Return the number of processes killed for lack of memory; 0 without a cgroup."""
        return self.group.count_kills() if self.group else 0


@contextlib.contextmanager
def hold_limits(limits: Limits) -> Iterator[Held]:
    """Return a command prefix that enforces the limits.

    The memory limit holds for all processes together in a cgroup; without one, for the data of each process. The CPUs
    are the first of those that this process may use.
    """
    cpus = sorted(os.sched_getaffinity(0))[: limits.cpus] if sys.platform == "linux" else []
    with make_group(limits.memory) as group:
        # The data, not the address space: a GPU's driver reserves far more addresses than it uses.
        data = None if group else limits.memory
        entrance = str(group.entrance) if group else None
        settings = json.dumps({"group": entrance, "cpus": cpus, "data": data, "file": limits.file})
        texts = (_describe_cpus(cpus, limits), _describe_memory(group, limits), f"files up to {_format(limits.file)}")
        yield Held(f"limits: {', '.join(texts)}", (sys.executable, "-I", str(ENTER), settings), group)


def _describe_cpus(cpus: list[int], limits: Limits) -> str:
    if not cpus:
        return "all CPUs (no limit on this system)"
    return f"{len(cpus)} of {os.cpu_count()} CPUs" + ("" if len(cpus) == limits.cpus else f" (wanted {limits.cpus})")


def _describe_memory(group: Group | None, limits: Limits) -> str:
    if not group and sys.platform != "linux":
        return "all memory (no limit on this system)"
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    less = f" (this machine has {_format(machine)})" if machine < limits.memory else ""
    scope = "for all processes together (cgroup)" if group else "for the data of each process (no cgroup permitted)"
    return f"{_format(limits.memory)} of memory{less} {scope}"


def _format(size: int) -> str:
    return f"{size / GB:.3g} GB"
