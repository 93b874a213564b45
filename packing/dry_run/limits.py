"""What a kernel's machine has, which a rehearsal must not pass: CPUs, memory, the size of a file."""

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
    """`cpus`: their number; `memory` of all processes together and `file`, the largest, in bytes."""

    cpus: int
    memory: int
    file: int


# 4 vCPUs and about 31 GB with any accelerator. /kaggle/working has 20 GB; we can only hold a single file to that.
KERNEL = Limits(cpus=4, memory=31 * GB, file=20 * GB)


@dataclass(frozen=True)
class Held:
    """How a command is run within limits: what stands before it, and the cgroup that it is in, if any."""

    description: str
    prefix: tuple[str, ...]
    group: Group | None = None

    def count_kills(self) -> int:
        """Processes that the system ended for want of memory; 0 where nothing counts them."""
        return self.group.count_kills() if self.group else 0


@contextlib.contextmanager
def hold_limits(limits: Limits) -> Iterator[Held]:
    """The limits as a command's prefix: all processes together have the memory where a cgroup can be made.

    Else each process has it for its own data. The CPUs are the first of those that we may use.
    """
    cpus = sorted(os.sched_getaffinity(0))[: limits.cpus] if sys.platform == "linux" else []
    with make_group(limits.memory) as group:
        # Not the address space, of which a GPU's driver reserves far more than it uses.
        data = None if group else limits.memory
        entrance = str(group.entrance) if group else None
        settings = json.dumps({"group": entrance, "cpus": cpus, "data": data, "file": limits.file})
        told = (_describe_cpus(cpus, limits), _describe_memory(group, limits), f"no file over {_tell(limits.file)}")
        yield Held(f"limits: {', '.join(told)}", (sys.executable, "-I", str(ENTER), settings), group)


def _describe_cpus(cpus: list[int], limits: Limits) -> str:
    if not cpus:
        return "all CPUs (cannot be held here)"
    return f"{len(cpus)} of {os.cpu_count()} CPUs" + ("" if len(cpus) == limits.cpus else f" (wanted {limits.cpus})")


def _describe_memory(group: Group | None, limits: Limits) -> str:
    if not group and sys.platform != "linux":
        return "any memory (cannot be held here)"
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    less = f" (this machine has {_tell(machine)})" if machine < limits.memory else ""
    whose = "for all processes together (cgroup)" if group else "for the data of each process (no cgroup can be made)"
    return f"{_tell(limits.memory)} of memory{less} {whose}"


def _tell(size: int) -> str:
    return f"{size / GB:.3g} GB"
