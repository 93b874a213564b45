"""The rules of the house, each a function from a checkout to the list of its breaches."""

import ast
import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# From the ground up: a module imports from its own wing or room, or from one below.
WINGS = ("basics", "manifest", "task", "images", "models", "ensemble", "run")
HOME = ("packing", "training", "demo")
FLOORS = {"inference": {"inference"}, "zoo": {"inference", "zoo"}} | {room: {"inference", "zoo", room} for room in HOME}
BESIDE_THE_ROOMS = ("roads", "house", "fuzz")
MOST_LINES, MOST_FUNCTION_LINES, MOST_FILES = 300, 60, 12
# Distributions whose import name differs.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "iterstrat": "iterative-stratification"}


@functools.lru_cache(None)
def parse(source: str) -> ast.Module:
    """The syntax tree of a source, parsed once however many rules read it."""
    return ast.parse(source)


def list_modules(root: Path) -> dict[str, ast.Module]:
    """The syntax tree of each module of the rooms, by dotted name; a package by its folder's name."""
    found = {}
    for room in FLOORS:
        for path in sorted((root / room).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            found[name] = parse(path.read_text(encoding="utf-8"))
    return found


@functools.lru_cache(None)
def list_imports(tree: ast.Module) -> tuple[str, ...]:
    """Every dotted name that a module imports, in functions and under TYPE_CHECKING too."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += [f"{module}.{alias.name}" for alias in node.names]
    return tuple(found)


def map_imports(root: Path) -> dict[str, set[str]]:
    """For each module, the modules of the rooms that it imports."""
    modules = list_modules(root)
    found: dict[str, set[str]] = {}
    for name, tree in modules.items():
        given = {one if one in modules else one.rpartition(".")[0] for one in list_imports(tree)}
        found[name] = {one for one in given if one in modules and one != name}
    return found


def find_upward_imports(root: Path) -> list[str]:
    """Imports from a higher wing of the kernel, or from another room of the same floor."""
    found = []
    for name, imported in map_imports(root).items():
        room, wing = (*name.split("."), "")[:2]
        for other in sorted(imported):
            their_room, their_wing = (*other.split("."), "")[:2]
            if their_room not in FLOORS[room]:
                found.append(f"{name} imports {other}: {room} may import {', '.join(sorted(FLOORS[room]))}")
            elif {wing, their_wing} <= set(WINGS) and WINGS.index(their_wing) > WINGS.index(wing):
                found.append(f"{name} imports {other}: {wing} is below {their_wing}")
    return found


def find_circles(root: Path) -> list[str]:
    """Modules that import one another in a circle."""
    graph = map_imports(root)
    found, finished = [], set[str]()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" imports ".join((*path[path.index(name) :], name)))
        elif name not in finished:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            finished.add(name)

    for name in graph:
        visit(name, ())
    return found


def find_broken_imports(root: Path) -> list[str]:
    """Names that benchmarks or the notebook import from the rooms, and that are not defined there."""
    modules, found = list_modules(root), []
    defined = {name: set(list_definitions(tree)) for name, tree in modules.items()}
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((root / "benchmarks").rglob("*.py"))}
    notebook = root / "kernel_template.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources[notebook] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for path, source in sources.items():
        for one in list_imports(parse(source)):
            module, _, name = one.rpartition(".")
            if one.partition(".")[0] in FLOORS and one not in modules and name not in defined.get(module, ()):
                found.append(f"{path.relative_to(root).as_posix()} imports {one}, which does not exist")
    return found


def list_definitions(tree: ast.Module) -> Iterator[str]:
    """The names that a module defines or imports at its top."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom):
            yield from (child.id for child in ast.walk(node) if isinstance(child, ast.Name))
            yield from (child.asname or child.name for child in ast.walk(node) if isinstance(child, ast.alias))


def find_unreached(root: Path) -> list[str]:
    """Modules of the kernel that neither inference.pyz nor the notebook ever imports."""
    graph = map_imports(root)
    notebook = (root / "kernel_template.ipynb").read_text(encoding="utf-8")
    pending = ["inference.__main__", *re.findall(r"inference\.[a-z_.]+", notebook)]
    reached: set[str] = set()
    while pending:
        name = pending.pop()
        if name in graph and name not in reached:
            parents = {name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)}
            reached |= {name} | parents
            pending += graph[name]
    unreached = sorted(name for name in graph if name.startswith("inference.") and name not in reached)
    return [f"{name}: neither inference/__main__.py nor the notebook imports it" for name in unreached]


def read_allowed(root: Path) -> dict[str, set[str]]:
    """The packages that each room may import, from the README's map of the folders."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|.*\| ([^|]*) \|$", readme, re.MULTILINE)
    return {room: set(re.findall(r"`([\w.-]+?)/?`", cell)) for room, cell in rows}


def find_foreign_packages(root: Path) -> list[str]:
    """Third-party packages in only one of two places: a room's imports, and its row of the README's table."""
    allowed, found = read_allowed(root), []
    used: dict[str, set[str]] = {room: set() for room in FLOORS}
    for name, tree in list_modules(root).items():
        room = name.partition(".")[0]
        for one in list_imports(tree):
            top = one.partition(".")[0]
            package = DISTRIBUTIONS.get(top, top)
            if not top:
                found.append(f"{name}: a relative import")
            elif top not in FLOORS and top not in sys.stdlib_module_names and top != "__future__":
                used[room].add(package)
                if package not in allowed.get(room, set()):
                    found.append(f"{name} imports {package}, which README.md does not list for {room}/")
    for room in FLOORS:
        unused = allowed.get(room, set()) - used[room] - set(FLOORS)
        found += [f"README.md lists {package} for {room}/, which never imports it" for package in sorted(unused)]
    return found


def find_homeless_tests(root: Path) -> list[str]:
    """Test files whose name is not that of a module in the same room."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        inside = path.relative_to(root / "tests")
        module = inside.with_name(inside.name.removeprefix("test_"))
        if inside.parts[0] not in BESIDE_THE_ROOMS and not (root / module).is_file():
            found.append(f"tests/{inside.as_posix()}: no module {module.as_posix()}")
    return found


def find_large_parts(root: Path) -> list[str]:
    """Modules and functions that are too long, and folders with too many files side by side."""
    found = []
    rooms = [*FLOORS, "benchmarks"]
    for path in sorted(path for room in rooms for path in (root / room).rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        lines = len(text.splitlines())
        if lines > MOST_LINES:
            found.append(f"{name}: {lines} lines, at most {MOST_LINES}")
        for node in ast.walk(parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    found.append(f"{name}: {node.name} has {lines} lines, at most {MOST_FUNCTION_LINES}")
    folders = {path.parent for room in (*rooms, "tests", "docs") for path in (root / room).rglob("*.*")}
    for folder in sorted(folder for folder in folders if "__pycache__" not in folder.parts):
        files = [path for path in folder.iterdir() if path.is_file()]
        if len(files) > MOST_FILES:
            name = folder.relative_to(root).as_posix()
            found.append(f"{name}/: {len(files)} files side by side, at most {MOST_FILES}")
    return found
