"""A script that sets limits on its process and then replaces itself by a command.

usage: python -I hold_limits.py LIMITS COMMAND [ARGUMENT ...]

LIMITS is JSON: `group`: the cgroup.procs to join, or null; `cpus`: their numbers, empty for all; `data` and `file`: the
largest data of a process and the largest file in bytes, or null. Imports the standard library only.
"""

import json
import os
import resource
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Set the limits on this process, which its children inherit, and execute the command."""
    limits = json.loads(arguments[0])
    if limits["group"]:
        Path(limits["group"]).write_text(str(os.getpid()), encoding="ascii")
    if limits["cpus"]:
        os.sched_setaffinity(0, limits["cpus"])
    for kind, most in ((resource.RLIMIT_DATA, limits["data"]), (resource.RLIMIT_FSIZE, limits["file"])):
        if most:
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))
    os.execvp(arguments[1], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
