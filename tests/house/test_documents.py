"""What README and docs/ tell a reader to type is there to be typed, and what they link to is there to be read."""

import re
import shlex
from pathlib import Path

import pytest

from build_kernel import PARSER
from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def find_commands(text: str) -> list[list[str]]:
    """The arguments of each `python build_kernel.py` in the shell blocks of a document."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    words = (shlex.split(line, comments=True) for line in blocks.splitlines())
    return [line[2:] for line in words if line[:2] == ["python", "build_kernel.py"]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_command_of_a_document_is_one_that_there_is(document: Path) -> None:
    for command in find_commands(document.read_text(encoding="utf-8")):
        assert callable(PARSER.parse_args(command).run)


def test_the_readme_goes_the_whole_road() -> None:
    told = [command[0] for command in find_commands((ROOT / "README.md").read_text(encoding="utf-8"))]
    road = ["add", "export", "pack", "check", "dry-run", "upload"]
    assert [name for name in dict.fromkeys(told) if name in road] == road


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (document.parent / link).exists(), link
