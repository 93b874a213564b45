"""Copy figures from the first table of benchmarks/RESULTS.md into README.md and docs/.

python -m benchmarks.documents.copy_figures             rewrite every block of figures
python -m benchmarks.documents.copy_figures --check     change nothing; exit 1 and name each file and line that differs

A block stands between `<!-- figures: KEY ... -->` and `<!-- end of figures -->`; other text holds no measured figure.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = "benchmarks/RESULTS.md"
HEADER = "| key | figure | value | command |"
START, END = re.compile(r"<!-- figures: (.+) -->"), "<!-- end of figures -->"
KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# A score such as 0.6174, a rate such as 143.2 images/s, a speed-up such as 2.4 times.
MEASURED = re.compile(r"(?<![\d.])0\.\d{3,4}(?!\d)|\d[\d,.]* (?:images|passes)/s|\d[\d,.]* times\b")
ADVICE = "run python -m benchmarks.documents.copy_figures"
SETTINGS = frozenset({"0.003"})  # the default of `runtime.metric_loss`
Figures = Mapping[str, tuple[str, str]]


class FiguresError(Exception):
    """A page or the table of figures is not in the form that this module reads."""


def read_figures(path: Path) -> Figures:
    """The (figure, value) of each key in the first table of RESULTS.md."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if HEADER not in lines:
        raise FiguresError(f"{path.name}: no table with the header `{HEADER}`")
    figures: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines[lines.index(HEADER) + 2 :], lines.index(HEADER) + 3):
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or not all(cells):
            raise FiguresError(f"{path.name}:{number}: wanted four filled cells: key, figure, value, command")
        if not KEY.fullmatch(cells[0]) or cells[0] in figures:
            raise FiguresError(f"{path.name}:{number}: key `{cells[0]}`: wanted a new key such as `demo-f2`")
        figures[cells[0]] = (cells[1], cells[2])
    return figures


def list_pages(root: Path) -> list[Path]:
    """The pages that may hold blocks of figures."""
    return [root / "README.md", *sorted(page for page in (root / "docs").glob("*.md") if page.name != "findings.md")]


def fill_page(text: str, figures: Figures, name: str) -> str:
    """The page with every block of figures rewritten; `name` is used in errors."""
    filled: list[str] = []
    opened = 0  # the line where the present block starts; 0 outside a block
    for number, line in enumerate(text.splitlines(), 1):
        start = START.fullmatch(line)
        if start and opened:
            break
        if start:
            opened, keys = number, start[1].split()
            for key in keys:
                if key not in figures:
                    raise FiguresError(f"{name}:{number}: no figure `{key}` in {RESULTS}; correct the key or add a row")
            filled += [line, "| figure | value |", "|---|---|", *("| {} | {} |".format(*figures[key]) for key in keys)]
        elif line == END and not opened:
            raise FiguresError(f"{name}:{number}: `{END}` without a start")
        elif line == END or not opened:
            opened = 0
            filled.append(line)
    if opened:
        raise FiguresError(f"{name}:{opened}: the block of figures has no `{END}`")
    return "\n".join(filled) + "\n"


def find_stale(text: str, filled: str, name: str) -> list[str]:
    """A message for the first line of a page that differs from the filled page."""
    pairs = zip_longest(text.splitlines(), filled.splitlines(), fillvalue="nothing")
    differing = [(number, *pair) for number, pair in enumerate(pairs, 1) if pair[0] != pair[1]]
    return [f"{name}:{number}: found `{found}`; wanted `{want}`; {ADVICE}" for number, found, want in differing[:1]]


def find_loose(text: str, name: str) -> Iterator[str]:
    """A message for each measured figure outside the blocks and the code fences of a page."""
    fenced = blocked = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        blocked = (blocked or bool(START.fullmatch(line))) and line != END
        for match in () if fenced or blocked else sorted(set(MEASURED.findall(line)) - SETTINGS):
            yield f"{name}:{number}: found the figure `{match}`; wanted it in a block of figures"


def main(given: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Rewrite or check every page; 1 where a page differs or cannot be read."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.documents.copy_figures", description="Copy figures into pages."
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a page differs")
    check = parser.parse_args(given).check
    faults: list[str] = []
    try:
        figures = read_figures(root / RESULTS)
        for page in list_pages(root):
            name, text = str(page.relative_to(root)), page.read_text(encoding="utf-8")
            filled = fill_page(text, figures, name)
            if not check and filled != text:
                page.write_text(filled, encoding="utf-8")
            faults += [*(find_stale(text, filled, name) if check else ()), *find_loose(filled, name)]
    except FiguresError as error:
        faults.append(f"error: {error}")
    print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
