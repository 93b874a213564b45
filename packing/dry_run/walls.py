"""Isolation of a notebook from the network and from changes of its inputs, by Linux namespaces or Python hooks."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SANDBOX = Path(__file__).with_name("sandbox.py")
# Mounts each folder onto itself, read-only; then runs the rest of the command.
MOUNT = (
    'set -e; count=$1; shift; while [ "$count" -gt 0 ]; do mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; '
    'shift; count=$((count - 1)); done; exec "$@"'
)
HOOKS = """import sys
sys.path.insert(0, {sandbox!r})
from sandbox import close_doors
sys.path.pop(0)
close_doors({folders!r})
"""


@dataclass(frozen=True)
class Walls:
    """Isolation of a command."""

    description: str
    prefix: tuple[str, ...]
    """What to write before the command."""
    python_path: tuple[str, ...] = ()
    """Folders for its PYTHONPATH."""


def build_walls(read_only: Sequence[Path], scratch: Path) -> Walls:
    """Set up namespaces without a network in which `read_only` cannot be written.

    If the system forbids them, write a `sitecustomize` to `scratch` that refuses sockets and changes in every Python
    process that inherits it.
    """
    folders = [str(folder.resolve()) for folder in read_only]
    for user in ([], ["--map-root-user"]):
        prefix = ["unshare", *user, "--net", "--mount", "sh", "-c", MOUNT, "sh", str(len(folders)), *folders]
        if shutil.which("unshare"):
            probe = subprocess.run([*prefix, "true"], capture_output=True, check=False)
            if probe.returncode == 0:
                return Walls("no network (namespace), inputs mounted read-only", tuple(prefix))
    scratch.mkdir(parents=True, exist_ok=True)
    hooks = HOOKS.format(sandbox=str(SANDBOX.parent), folders=folders)
    (scratch / "sitecustomize.py").write_text(hooks, encoding="utf-8")
    return Walls("no network and read-only inputs, in Python only (hooks)", (), (str(scratch),))
