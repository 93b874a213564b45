"""The packed script under the notebook's supervision: killed in every stage, without memory, aborted inside a model."""

import ast
import json
import os
import shutil
import signal
import sys
import time
import zipfile
from pathlib import Path

import pytest

from inference.basics.deadline import Deadline
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME
from inference.run.supervise import check_result, supervise, write_prior
from inference.task.ids import read_ids
from tests.conftest import ROOT, Workshop
from tests.packing.pack.test_render_notebook import execute, mount

# At each start below `starts`, this main of the script sends itself a signal when a function is called for the
# `calls`-th time. It notes its options.
FATAL = """
import importlib, json, os, sys
from pathlib import Path
fate = json.loads({fate!r})
folder = Path(fate["notes"])
number = len(list(folder.iterdir()))
(folder / str(number)).write_text(json.dumps(sys.argv[1:]))
if number < fate["starts"]:
    if not fate["place"]:
        os.kill(os.getpid(), fate["signal"])
    module, _, name = fate["place"].rpartition(":")
    holder = importlib.import_module(module)
    *owners, name = name.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    real, calls = getattr(holder, name), []
    def die(*given, **more):
        calls.append(1)
        if len(calls) == fate["calls"] or fate["image"] and fate["image"] in str(given[0]):
            os.abort() if fate["signal"] == 6 else os.kill(os.getpid(), fate["signal"])
        return real(*given, **more)
    setattr(holder, name, die)
from inference.__main__ import main
sys.exit(main())
"""
STAGES = {
    "the start of Python": ("", 1),
    "reading the input": ("inference.run.predict:read_job", 1),
    "the first submission": ("inference.run.predict:write_first", 1),
    "loading the stackers": ("inference.run.predict:load_stage", 1),
    "loading a model": ("inference.run.predict:open_runner", 2),
    "inside a model": ("inference.models.sessions:ModelSession.predict", 11),
    "selecting labels": ("inference.run.sweep:answer_chunk", 3),
    "saving a chunk": ("inference.run.store:Store.commit", 4),
    "the last submission": ("inference.run.predict:finish", 1),
    "the log": ("inference.basics.run_log:RunLog.write", 1),
}
READING = ("inference.run.sweep:read_picture", 0)  # of one image
FEWER = 2  # images per chunk, so that there are ten chunks


def doom(dataset: Path, notes: Path, stage: str, number: int, starts: int, image: str = "") -> None:
    """Make the script of a dataset die by the signal `number` at a stage or image, in its first `starts` starts."""
    notes.mkdir()
    script = dataset / "inference.pyz"
    with zipfile.ZipFile(script) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    place, calls = READING if image else STAGES[stage]
    fate = {"place": place, "calls": calls, "image": image, "signal": number, "starts": starts, "notes": str(notes)}
    members["__main__.py"] = FATAL.format(fate=json.dumps(fate)).encode()
    with zipfile.ZipFile(script, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    path = dataset / MANIFEST_NAME
    document = json.loads(path.read_text())
    document["runtime"]["batch_size"] = FEWER
    document["runtime"]["script"]["sha256"] = hash_file(script)
    path.write_text(json.dumps(document))


def list_command(workshop: Workshop, out: Path) -> list[str]:
    command = [sys.executable, str(workshop.dataset / "inference.pyz"), "--bundle", str(workshop.dataset)]
    return [*command, "--images", str(workshop.images), "--sample", str(workshop.sample), "--out", str(out)]


def run_supervised(workshop: Workshop, out: Path, *before: str, seconds: float = 100.0) -> list[str]:
    """Supervise the script, as the notebook does; return the warnings. The submission is valid, whatever happens."""
    out.parent.mkdir()
    warnings: list[str] = []
    write_prior(workshop.dataset, workshop.sample, out)
    deadline = Deadline(time.monotonic(), seconds)
    supervise([*before, *list_command(workshop, out)], os.environ, deadline, 1.0, out, warnings.append)
    assert check_result(workshop.dataset, workshop.sample, out, lambda text: pytest.fail(text)) == 20
    return warnings


@pytest.fixture(scope="module")
def undisturbed(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The submission of a run that nothing ends."""
    copy = tmp_path_factory.mktemp("undisturbed")
    bundle = Path(shutil.copytree(workshop.bundle, copy / "bundle"))
    doom(bundle / "dataset", copy / "notes", "the log", 9, 0)
    own = Workshop(workshop.home, workshop.onnx, bundle, workshop.competition)
    assert run_supervised(own, copy / "out" / "submission.csv") == []
    return (copy / "out" / "submission.csv").read_bytes()


@pytest.mark.parametrize(("stage", "number"), [(stage, (9, 15, 11)[place % 3]) for place, stage in enumerate(STAGES)])
def test_a_script_killed_in_any_stage_ends_with_the_bytes_of_the_undisturbed_run(
    stage: str, number: int, own_workshop: Workshop, undisturbed: bytes, tmp_path: Path
) -> None:
    doom(own_workshop.dataset, tmp_path / "notes", stage, number, 1)
    warnings = run_supervised(own_workshop, tmp_path / "out" / "submission.csv")
    assert len(warnings) == 1 and f"was killed by signal {number} ({signal.strsignal(number)}" in warnings[0]
    assert (tmp_path / "out" / "submission.csv").read_bytes() == undisturbed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run_log.json", "submission.csv"]


def test_a_model_that_aborts_the_process_at_its_eleventh_call_costs_starts_and_no_predictions(
    own_workshop: Workshop, undisturbed: bytes, tmp_path: Path
) -> None:
    doom(own_workshop.dataset, tmp_path / "notes", "inside a model", signal.SIGABRT, 99)
    warnings = run_supervised(own_workshop, tmp_path / "out" / "submission.csv")
    assert len(warnings) >= 3 and all("signal 6 (Aborted)" in warning for warning in warnings)
    assert "starting it again with one lane and small batches" in warnings[2]
    starts = sorted((tmp_path / "notes").iterdir(), key=lambda path: int(path.name))
    options = [json.loads(path.read_text()) for path in starts]
    assert ["--low-memory" in given for given in options[:4]] == [False, False, False, True]
    assert (tmp_path / "out" / "submission.csv").read_bytes() == undisturbed


@pytest.mark.parametrize(("kilobytes", "dies"), [(260_000, False), (120_000, True)])
def test_without_memory_the_submission_is_valid(
    kilobytes: int, dies: bool, own_workshop: Workshop, tmp_path: Path
) -> None:
    shell = ["sh", "-c", f'ulimit -v {kilobytes}; exec "$@"', "sh"]
    warnings = run_supervised(own_workshop, tmp_path / "out" / "submission.csv", *shell)
    assert bool(warnings) is dies, "with the smaller limit, numpy does not load"


@pytest.mark.filterwarnings("ignore")  # of zmq and tornado, in another process
def test_the_notebook_ends_well_after_a_kill(
    workshop: Workshop, undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "kaggle"
    (root / "working").mkdir(parents=True)
    monkeypatch.setenv("KAGGLE_ROOT", str(root))
    bundle = mount(workshop, root, "newer")
    doom(bundle, tmp_path / "notes", "inside a model", signal.SIGKILL, 1)
    output = execute(workshop, manifest=bundle / MANIFEST_NAME)
    assert "DEGRADED: the script was killed by signal 9 (Killed; Linux does so if memory runs out)" in output
    assert "continuing an earlier run" in output and "submission.csv: valid, 20 rows" in output
    assert "the images are not shown, as the script was started more than once" in output
    assert "failed" not in output
    assert (root / "working" / "submission.csv").read_bytes() == undisturbed


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_ends_well_without_the_log_of_the_run(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "kaggle"
    (root / "working" / "run_log.json").mkdir(parents=True)  # the log cannot be written
    monkeypatch.setenv("KAGGLE_ROOT", str(root))
    mount(workshop, root, "older")
    output = execute(workshop)
    assert "DEGRADED: the script has not written run_log.json: " in output
    assert "submission.csv: valid, 20 rows" in output and "3 pictures" not in output


def test_no_statement_of_the_page_can_raise() -> None:
    """Cells after the check only define things and call `attempt`, which catches everything."""
    cells = json.loads((ROOT / "kernel_template.ipynb").read_text())["cells"]
    ids = [cell["id"] for cell in cells]
    page = [cell for cell in cells[ids.index("check") + 1 :] if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in page] == ["summary", "stages", "counts", "grid"]
    for cell in page:
        for statement in ast.parse("".join(cell["source"])).body:
            is_constant = isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]).isupper()
            calls = ast.unparse(statement).startswith(("attempt(", "shutil.rmtree(SCRATCH, ignore_errors=True"))
            is_constant = is_constant or (
                isinstance(statement, ast.Assign) and ast.unparse(statement.value) == "(12, 4, 6)"
            )
            assert isinstance(statement, ast.FunctionDef) or is_constant or calls, ast.unparse(statement)


def test_an_image_that_ends_the_process_costs_no_more_than_the_chunks_around_it(
    own_workshop: Workshop, undisturbed: bytes, tmp_path: Path
) -> None:
    """The decoder dies at the first image of the sample, in every start."""
    doom(own_workshop.dataset, tmp_path / "notes", "", signal.SIGSEGV, 99, image=read_ids(own_workshop.sample)[0])
    warnings = run_supervised(own_workshop, tmp_path / "out" / "submission.csv")
    assert len(warnings) >= 4 and all("signal 11" in warning for warning in warnings)
    found, wanted = (tmp_path / "out" / "submission.csv").read_bytes().splitlines(), undisturbed.splitlines()
    assert found[1 + 3 * FEWER :] == wanted[1 + 3 * FEWER :] and found != wanted
