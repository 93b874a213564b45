"""README.md and docs/ take every measured figure from the table of benchmarks/RESULTS.md."""

import re
from pathlib import Path

import pytest

from benchmarks.documents.copy_figures import END, MEASURED, RESULTS, find_loose, list_pages, main, read_figures
from tests.conftest import ROOT

BLOCK = "<!-- figures: demo-f2 -->\n| figure | value |\n|---|---|\n| demo, F2 | 0.9059 |\n" + END + "\n"
ROW = "| demo-f2 | demo, F2 | 0.9059 | `make demo` |\n"
TABLE = "# Results\n\n| key | figure | value | command |\n|---|---|---|---|\n" + ROW


def make_pages(root: Path, readme: str = BLOCK, table: str = TABLE) -> Path:
    for name, text in (("README.md", readme), (RESULTS, table), ("docs/kernel.md", "# The kernel\n")):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_every_block_is_up_to_date_and_no_figure_is_loose(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(["--check"]), capsys.readouterr().err) == (0, "")


def test_every_figure_of_the_table_is_in_a_section_below() -> None:
    table, _, sections = (ROOT / RESULTS).read_text(encoding="utf-8").partition("\n## ")
    assert table and len(read_figures(ROOT / RESULTS)) > 10
    for key, (_, value) in read_figures(ROOT / RESULTS).items():
        for number in re.findall(r"[\d.,:]*\d", value):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", sections), f"{key}: {number}"


def test_findings_are_the_only_page_that_is_not_read() -> None:
    docs = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert {page.name for page in list_pages(ROOT)} == docs - {"findings.md"} | {"README.md"}


def test_pages_in_order_pass(tmp_path: Path) -> None:
    assert main(["--check"], make_pages(tmp_path)) == 0


def test_a_stale_value_is_found_and_rewritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pages(tmp_path, BLOCK.replace("0.9059", "0.8"))
    assert main(["--check"], tmp_path) == 1
    found = "README.md:4: found `| demo, F2 | 0.8 |`; wanted `| demo, F2 | 0.9059 |`"
    assert capsys.readouterr().err == f"{found}; run python -m benchmarks.documents.copy_figures\n"
    assert main([], tmp_path) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == BLOCK


@pytest.mark.parametrize("figure", ["0.6174", "0.617", "143.2 images/s", "1,170 passes/s", "2.4 times", "2 times"])
def test_a_loose_figure_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str], figure: str) -> None:
    make_pages(tmp_path, f"{BLOCK}\nIt reaches {figure} here.\n")
    assert main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == f"README.md:7: found the figure `{figure}`; wanted it in a block of figures\n"


@pytest.mark.parametrize("text", ["at most 0.003 of F2", "numpy 2.0.2", "onnxruntime 1.26.0", "```\n0.9059\n```"])
def test_a_setting_a_version_and_printed_output_are_no_figures(text: str) -> None:
    assert list(find_loose(text, "README.md")) == []
    assert MEASURED.search("0.9059")


@pytest.mark.parametrize(
    ("readme", "table", "message"),
    [
        (
            BLOCK.replace("demo-f2", "demo-f3"),
            TABLE,
            "README.md:1: no figure `demo-f3` in benchmarks/RESULTS.md; correct the key or add a row",
        ),
        (
            BLOCK.replace(END, ""),
            TABLE,
            "README.md:1: the block of figures has no `<!-- end of figures -->`",
        ),
        (
            f"{BLOCK}{END}\n",
            TABLE,
            "README.md:6: `<!-- end of figures -->` without a start",
        ),
        (
            BLOCK,
            TABLE + "| demo-f2 | twice | 1 | `make demo` |\n",
            "RESULTS.md:6: key `demo-f2`: wanted a new key such as `demo-f2`",
        ),
        (
            BLOCK,
            TABLE + "| other | no command | 1 | |\n",
            "RESULTS.md:6: wanted four filled cells: key, figure, value, command",
        ),
        (BLOCK, "# Results\n", "RESULTS.md: no table with the header `| key | figure | value | command |`"),
    ],
)
def test_a_broken_block_or_table_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], readme: str, table: str, message: str
) -> None:
    make_pages(tmp_path, readme, table)
    for given in ([], ["--check"]):
        assert main(given, tmp_path) == 1
        assert capsys.readouterr().err == f"error: {message}\n"
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == readme
