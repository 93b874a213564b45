"""A script that runs another under a kernel's conditions: no network, read-only inputs, only the kernel's packages.

usage: python -I sandbox.py READ_ONLY_FOLDERS SCRIPT [ARGUMENT ...]     (folders separated by os.pathsep)

Imports the standard library only, so that the script cannot import more than in a kernel.
"""

import errno
import os
import runpy
import socket
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder

PACKAGES = frozenset({"inference", "numpy", "PIL", "onnxruntime"})
NETWORK = frozenset({"socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"})
CHANGES = frozenset(
    {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class KernelPackages(MetaPathFinder):
    """An import hook that refuses all packages except those of the kernel."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Return None, so that the other finders continue; raises ModuleNotFoundError for other packages."""
        top = name.partition(".")[0]
        if top not in PACKAGES | sys.stdlib_module_names | {"__main__"}:
            raise ModuleNotFoundError(
                f"No module named {name!r}: a kernel may import only {', '.join(sorted(PACKAGES))}", name=name
            )


def close_doors(read_only: Sequence[str]) -> None:
    """Refuse sockets and changes below the folders from now on; an audit hook cannot be removed."""
    roots = tuple(os.path.realpath(folder) + os.sep for folder in read_only)

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event in NETWORK and not _is_local(event, arguments):
            raise PermissionError(errno.EPERM, "no network in a kernel")
        if event == "open":
            path, _, flags = arguments
            changed = [path] if isinstance(flags, int) and flags & WRITING else []
        else:
            changed = list(arguments) if event in CHANGES else []
        for path in changed:
            if isinstance(path, str | bytes) and os.path.realpath(os.fsdecode(path)).startswith(roots):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))

    sys.addaudithook(refuse)


def _is_local(event: str, arguments: tuple[object, ...]) -> bool:
    # Unix sockets and socket pairs reach no network; asyncio and notebooks need them.
    if event == "socket.__new__":
        return arguments[1] == socket.AF_UNIX
    return event == "socket.connect" and getattr(arguments[0], "family", None) == socket.AF_UNIX


def main(arguments: Sequence[str]) -> None:
    """Run the script as __main__ with these restrictions."""
    read_only, script, *rest = arguments
    sys.meta_path.insert(0, KernelPackages())
    close_doors(read_only.split(os.pathsep))
    sys.argv = [script, *rest]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
