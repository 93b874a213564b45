"""What README and docs/ tell a reader to type exists, and so does what they link to and name."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_kernel import PARSER
from tests.conftest import ROOT
from training.__main__ import PARSER as TRAINING

DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def find_lines(text: str) -> list[list[str]]:
    """The words of each command in the shell blocks of a document."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    return [words for words in (shlex.split(line, comments=True) for line in blocks.splitlines()) if words]


def find_paths(text: str) -> Iterator[str]:
    """The folders and programs of this repository that a document names in backticks."""
    rooms = "inference|zoo|packing|training|demo|tests|benchmarks|docs"
    yield from re.findall(rf"`((?:{rooms})/(?:[a-z_/\d]*/|[a-z_/\d]*\.(?:py|sh|md)))`", text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_command_of_a_document_parses(document: Path) -> None:
    for words in find_lines(document.read_text(encoding="utf-8")):
        if words[:2] == ["python", "build_kernel.py"]:
            assert callable(PARSER.parse_args(words[2:]).run)
        elif words[:3] == ["python", "-m", "training"]:
            assert callable(TRAINING.parse_args(words[3:]).run)
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), words[2]
        else:
            assert words[0] in ("make", "cp", "sha256sum", ".venv/bin/python"), words


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_file_and_module_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for name in find_paths(text):
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python\s+-m ([\w.]+)", text):
        assert importlib.util.find_spec(module), module


def test_the_readme_goes_the_whole_road_on_one_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    steps = [words[2] for words in find_lines(text) if words[:2] == ["python", "build_kernel.py"]]
    assert list(dict.fromkeys(steps)) == ["init", "add", "export", "pack", "check", "dry-run", "upload"]
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1200


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (document.parent / link).exists(), link
