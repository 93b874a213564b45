"""The commands of README.md and of the plan's page, run in their order; test_second_stage.py runs `ensemble`."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from build_kernel import main
from demo.museum import write_museum
from tests.conftest import ROOT
from tests.house.test_documents import find_lines

# Options removed and added: no download of 831 MB, no environment like Kaggle's image, no upload, one precision.
REMOVED = {"--wheels", "--like-kaggle", "--wait"}
ADDED = {"upload": ["--print"], "export": ["--precisions", "fp32"]}
PAGES = ("README.md", "docs/precision-and-speed.md")
IMAGES = 24


def list_commands() -> list[list[str]]:
    """Return every `cp` and `python build_kernel.py` command of the pages, in order."""
    lines = [line for page in PAGES for line in find_lines((ROOT / page).read_text(encoding="utf-8"))]
    commands = [line for line in lines if line[0] == "cp" or line[:2] == ["python", "build_kernel.py"]]
    return [
        [word for word in line if word not in REMOVED] + ADDED.get(line[2] if len(line) > 2 else "", [])
        for line in commands
    ]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout after `make demo`, with fewer images."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("demo", "weights_manifest.json"):
        (root / name).symlink_to(ROOT / name)
    write_museum(root / "build" / "demo" / "museum", train_images=0, test_images=IMAGES)
    return root


def test_every_command_of_the_readme_runs(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    steps = []
    for command in list_commands():
        if command[0] == "cp":
            subprocess.run(" ".join(command), shell=True, check=True)  # the shell knows `*`
        else:  # in this process, which has imported torch already
            assert main(command[2:]) == 0, f"{shlex.join(command)}\n{capsys.readouterr().err}"
        steps.append(command[2] if command[0] == "python" else command[0])
        if steps[-1] == "dry-run":  # the plan reads the log of `make demo`
            shutil.copy(checkout / "build" / "dry-run" / "run_log.json", checkout / "build" / "demo")
    assert steps == ["init", "cp", *["add"] * 3, "export", "pack", "check", "dry-run", "upload", "plan"]
    rows = (checkout / "build" / "dry-run" / "submission.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == IMAGES + 1
    assert (checkout / "build" / "plan.png").is_file()
