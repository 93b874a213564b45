import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inference.basics.errors import RehearsalError
from packing.dry_run.scratch import make_scratch
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from packing.dry_run.scratch import make_scratch
with make_scratch(Path(sys.argv[1]), "kernel-") as folder:
    (folder / "input").symlink_to(sys.argv[2])
    print(folder, flush=True)
    time.sleep(60)
"""


def start_dry_run(out: Path, inputs: Path) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", HOLD, str(out), str(inputs)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_dry_run_is_removed_and_that_of_a_living_one_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, inputs = tmp_path / "out", tmp_path / "inputs"
    for folder in (out, inputs, out / "kernel-of-mine"):
        folder.mkdir()
    (inputs / "image.png").touch()
    (killed, dead), (running, alive) = start_dry_run(out, inputs), start_dry_run(out, inputs)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert dead.is_dir() and alive.is_dir()
    with make_scratch(out, "kaggle-") as folder:
        assert sorted(out.iterdir()) == sorted((folder, alive, out / "kernel-of-mine"))
    assert capsys.readouterr().out == f"note: {dead}: removed; a killed dry run left it\n"
    assert sorted(out.iterdir()) == sorted((alive, out / "kernel-of-mine")) and (inputs / "image.png").exists()
    running.kill()
    running.communicate()


def test_a_leftover_that_cannot_be_removed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "kernel-x"
    left.mkdir()
    (left / ".vitrine-dry-run").touch()

    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("packing.dry_run.scratch.shutil.rmtree", fail)
    with pytest.raises(RehearsalError) as error, make_scratch(tmp_path, "kernel-"):
        pass
    assert str(error.value) == (
        f"{left}: left by a killed dry run and cannot be removed: Permission denied; remove it manually"
    )
