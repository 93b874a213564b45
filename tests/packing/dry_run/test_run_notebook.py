"""The dry run of the notebook, mostly in this Python, which has ONNX Runtime, instead of Kaggle's image."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

import packing.dry_run.environment
import packing.dry_run.limits
import packing.dry_run.run_notebook
from inference.basics.errors import PackError, RehearsalError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME
from inference.manifest.records import Runtime
from packing.dry_run.cgroups import make_group
from packing.dry_run.environment import MARKER, find_interpreter, prepare_image
from packing.dry_run.limits import Limits
from packing.dry_run.outcome import Rehearsal
from packing.dry_run.run_notebook import KaggleRehearsal, rehearse_like_kaggle
from packing.dry_run.walls import Walls, build_walls
from packing.pack.fetch_wheels import ONNXRUNTIME
from packing.pack.metadata import DATASET_METADATA, KERNEL_METADATA
from packing.pack.render_notebook import seal_notebook
from packing.pack.write_bundle import pack
from tests.conftest import NAMES, ROOT, Workshop, write_prior_cell

BUILD = ROOT / "build"
pytestmark = pytest.mark.filterwarnings("ignore")  # of zmq, tornado and nbconvert


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use this Python instead of an environment similar to Kaggle's image."""
    monkeypatch.setattr(packing.dry_run.run_notebook, "prepare_image", lambda cache, python: Path(sys.executable))


def write_notebook(bundle: Path, *cells: str) -> Path:
    """Replace the bundle's notebook by one with these cells, sealed like that of a pack."""
    names = f'OWNER, SLUG, COMPETITION = "{NAMES.owner}", "{NAMES.slug}", "{NAMES.competition}"'
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (names, *cells)])
    path = bundle / "kernel" / "kernel.ipynb"
    dataset, kernel = bundle / "dataset", bundle / "kernel"
    files = (dataset / MANIFEST_NAME, dataset / DATASET_METADATA, kernel / KERNEL_METADATA)
    path.write_text(seal_notebook(notebook, {file.name: hash_file(file) for file in files}))
    return path


@pytest.mark.parametrize("layout", ["newer", "older"])
def test_the_notebook_ends_in_a_valid_submission_and_a_page_in_both_layouts(
    layout: packing.dry_run.run_notebook.Layout, here: None, workshop: Workshop, tmp_path: Path
) -> None:
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    theirs.mkdir()
    shutil.copyfile(workshop.onnx / "culture.onnx", theirs / "bobs.onnx")
    attached = {"bob/zoo-of-bob": theirs}
    bundle = pack(workshop.manifest, workshop.onnx, tmp_path / "bundle", NAMES, attach=attached).dataset
    rehearsed = rehearse_like_kaggle(
        bundle, workshop.competition, out, tmp_path, limit=5, layout=layout, attached=attached
    )
    # Every model has run: that of the attached dataset too.
    assert rehearsed.run.degraded == ("packed for T4x2, found 0 of 2 GPUs; running on the CPU",)
    assert rehearsed.run.images == 5 and rehearsed.first_prediction is not None
    assert 0 < rehearsed.first_prediction < rehearsed.seconds
    assert 0 < rehearsed.outside < rehearsed.seconds - rehearsed.run.seconds, "more than what the script leaves"
    assert "\nlimits: " in rehearsed.walls and " CPUs" in rehearsed.walls and "31 GB of memory" in rehearsed.walls
    assert sorted(path.name for path in out.iterdir()) == ["kernel.html", "run_log.json", "submission.csv"]
    assert (out / "submission.csv").read_text().count("\n") == 6
    page = (out / "kernel.html").read_text()
    place = f"input/datasets/{NAMES.owner}/{NAMES.slug}" if layout == "newer" else f"input/{NAMES.slug}"
    assert place in page and "data:image/png;base64," in page and "DEGRADED: packed for T4x2" in page


PROBE = """
import json, os, socket, sys
from pathlib import Path
root, results = Path(os.environ["KAGGLE_ROOT"]), {}
def attempt(name, action):
    try:
        action()
        results[name] = "done"
    except OSError as error:
        results[name] = "refused"
attempt("network", lambda: socket.create_connection(("127.0.0.1", int("%d")), timeout=5))
attempt("input", lambda: (root / "input" / "new").write_text("x"))
attempt("dataset", lambda: (root / "input/datasets/%s/%s/labels.csv").open("a"))
attempt("image", lambda: next((root / "input/competitions/%s/test").iterdir()).open("ab"))
attempt("working", lambda: (root / "working" / "new").write_text("x"))
raise RuntimeError(json.dumps(results, sort_keys=True))
"""


@pytest.mark.parametrize("namespaces", [True, False])
def test_the_notebook_has_no_network_and_cannot_change_its_inputs(
    namespaces: bool, here: None, own_workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not namespaces:
        monkeypatch.setattr("packing.dry_run.walls.shutil.which", lambda name: None)
    elif not build_walls([own_workshop.dataset], tmp_path / "hooks").prefix:
        pytest.skip("this system forbids namespaces")
    with open_port() as port:
        write_notebook(own_workshop.bundle, PROBE % (port, NAMES.owner, NAMES.slug, NAMES.competition))
        with pytest.raises(RehearsalError) as error:
            rehearse_like_kaggle(own_workshop.dataset, own_workshop.competition, tmp_path / "out", tmp_path)
    found = '{"dataset": "refused", "image": "refused", "input": "refused", "network": "refused", "working": "done"}'
    assert str(error.value) == (
        f"{own_workshop.bundle}/kernel/kernel.ipynb: failed with RuntimeError: {found}; see {tmp_path}/out/kernel.html"
    )
    assert "RuntimeError" in (tmp_path / "out" / "kernel.html").read_text()


class open_port:
    """A port of this machine that accepts connections."""

    def __enter__(self) -> int:
        import socket

        self.server = socket.create_server(("127.0.0.1", 0))
        port: int = self.server.getsockname()[1]
        return port

    def __exit__(self, *error: object) -> None:
        self.server.close()


def test_a_notebook_that_exceeds_its_time_limit_is_stopped(here: None, own_workshop: Workshop, tmp_path: Path) -> None:
    path = write_notebook(own_workshop.bundle, "import time; time.sleep(300)")
    with pytest.raises(RehearsalError) as error:
        rehearse_like_kaggle(own_workshop.dataset, own_workshop.competition, tmp_path / "out", tmp_path, time_limit=1)
    assert re.fullmatch(
        re.escape(f"{path}: stopped after ") + r"[1-9]\.\d s; wanted at most its time limit of 1 s from the start of "
        r"Python to the saved page; raise --time-limit or `runtime.notebook_reserve`; see "
        + re.escape(f"{tmp_path}/out/kernel.html"),
        str(error.value),
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kernel.html"]


def write_results(log: object, labels: str) -> str:
    """Return a cell that leaves a submission with `labels` for every image, and the log of a run."""
    text = f"pathlib.Path('run_log.json').write_text({json.dumps(log)!r})" if log is not None else "None"
    return (
        "import os, pathlib\n"
        "sample = next(pathlib.Path(os.environ['KAGGLE_ROOT'], 'input').rglob('sample_submission.csv'))\n"
        "ids = [line.partition(',')[0] for line in sample.read_text().splitlines()[1:]]\n"
        f"rows = ['id,attribute_ids', *(f'{{name}},{labels}' for name in ids)]\n"
        "pathlib.Path('submission.csv').write_text('\\n'.join(rows) + '\\n')\n"
        f"{text}"
    )


LOG: dict[str, object] = {"images_per_second": 2.0, "unreadable": {}, "degraded": [], "seconds": {"total": 1.0}}


def rehearse_cells(workshop: Workshop, out: Path, *cells: str, time_limit: float | None = None) -> KaggleRehearsal:
    write_notebook(workshop.bundle, *cells)
    return rehearse_like_kaggle(workshop.dataset, workshop.competition, out, out.parent, limit=4, time_limit=time_limit)


def test_the_time_limit_holds_for_all_cells_together(here: None, own_workshop: Workshop, tmp_path: Path) -> None:
    """Each cell alone is within the limit; the results are valid."""
    cells = (write_results(LOG, "0 2"), *["import time; time.sleep(2)"] * 6)
    with pytest.raises(
        RehearsalError, match=r"kernel.ipynb: stopped after \d\.\d s; wanted at most its time limit of 4 s"
    ):
        rehearse_cells(own_workshop, tmp_path / "out", *cells, time_limit=4)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kernel.html"]


def test_the_page_counts_towards_the_time_limit(
    here: None, own_workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing.dry_run.run_notebook, "write_notebook_page", lambda notebook, path: time.sleep(6))
    with pytest.raises(RehearsalError, match=r"kernel.ipynb: took \d+\.\d s; wanted at most its time limit of 6 s"):
        rehearse_cells(own_workshop, tmp_path / "out", write_results(LOG, "0 2"), time_limit=6)


@pytest.mark.parametrize(
    ("log", "labels", "message"),
    [
        (None, "0 2", "the script did not finish: it wrote no run_log.json"),
        ([], "0 2", "run_log.json: `(the whole file)`: found []; wanted an object; wanted the log of a finished run"),
        (
            LOG | {"degraded": ["out of memory", "x"]},
            "PRIOR",
            "all 4 images have the prior labels: out of memory; wanted predictions",
        ),
        (
            LOG | {"images_per_second": 0.0, "unreadable": {"a": "not an image"}},
            "PRIOR",
            "all 4 images have the prior labels: image a: not an image; wanted predictions",
        ),
    ],
)
def test_a_notebook_that_ends_well_without_predictions_fails_the_dry_run(
    log: object,
    labels: str,
    message: str,
    here: None,
    own_workshop: Workshop,
    tmp_path: Path,
) -> None:
    prior = write_prior_cell(own_workshop.manifest)
    with pytest.raises(RehearsalError) as error:
        rehearse_cells(own_workshop, tmp_path / "out", write_results(log, labels.replace("PRIOR", prior)))
    notebook = own_workshop.bundle / "kernel" / "kernel.ipynb"
    assert str(error.value) == f"{notebook}: {message}; see {tmp_path}/out/kernel.html"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kernel.html"]


def test_a_degraded_notebook_is_accepted_and_its_reasons_are_listed_once(
    here: None, own_workshop: Workshop, tmp_path: Path
) -> None:
    shown = "print('\\x1b[1;31mDEGRADED: the script was started twice\\x1b[0m')\nprint('DEGRADED: a model is missing')"
    log = LOG | {"degraded": ["a model is missing"]}
    rehearsed = rehearse_cells(own_workshop, tmp_path / "out", shown, write_results(log, "0 2"))
    assert rehearsed.describe().endswith(
        " less the notebook reserve of 5:00\nDEGRADED: a model is missing\nDEGRADED: the script was started twice"
    )


def test_the_time_outside_of_the_script_is_that_before_the_first_cell_and_after_the_log(
    here: None, own_workshop: Workshop, tmp_path: Path
) -> None:
    cells = ("import time; time.sleep(2)", write_results(LOG, "0 2"), "time.sleep(3)")
    rehearsed = rehearse_cells(own_workshop, tmp_path / "out", *cells)
    assert 3 < rehearsed.outside < rehearsed.seconds - 2


@pytest.mark.parametrize(
    ("outside", "limit", "end"),
    [
        (6.1, 32400.0, "about 30 s on Kaggle (x5); the notebook reserve is 300 s"),
        (
            6.1,
            60.0,
            "about 30 s on Kaggle (x5); DOES NOT FIT the notebook reserve of 6 s: a tenth of the time limit, at most "
            "`runtime.notebook_reserve`; raise them",
        ),
    ],
)
def test_the_time_outside_of_the_script_is_judged_by_the_notebook_reserve(
    outside: float, limit: float, end: str
) -> None:
    run = Rehearsal(10, 0, 5.0, 2.0, limit, Runtime().choose_reserve(limit), 10)
    lines = KaggleRehearsal(run, None, 20.0, outside, "walls").describe().splitlines()
    assert lines[2] == f"outside the script: 6.1 s here, {end}"


def test_a_notebook_or_a_manifest_changed_after_packing_is_refused(
    here: None, own_workshop: Workshop, tmp_path: Path
) -> None:
    notebook = own_workshop.bundle / "kernel" / "kernel.ipynb"
    before = notebook.read_text()
    notebook.write_text(before + "\n")
    given = (own_workshop.dataset, own_workshop.competition, tmp_path / "out", tmp_path)
    with pytest.raises(PackError, match=rf"^{notebook}: found sha256 \w+…; wanted \w+…, the hash at packing time"):
        rehearse_like_kaggle(*given)
    notebook.write_text(before)
    manifest = own_workshop.dataset / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace("32400", "32401"))
    with pytest.raises(PackError, match=rf"^{manifest}: found sha256 "):
        rehearse_like_kaggle(*given)
    assert not (tmp_path / "out").exists()


GREEDY = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "b'x' * 10**9"], check=True)
"""


@pytest.mark.parametrize("cgroup", [True, False])
def test_a_script_that_runs_out_of_memory_ends_the_dry_run(
    cgroup: bool, here: None, own_workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(cpus=4, memory=600 * 10**6, file=10**9)
    if not cgroup:
        monkeypatch.setattr(packing.dry_run.limits, "make_group", lambda memory: contextlib.nullcontext())
    else:
        with make_group(limits.memory) as group:
            if not group:
                pytest.skip("this system forbids cgroups")
    path = write_notebook(own_workshop.bundle, GREEDY)
    with pytest.raises(RehearsalError) as error:
        rehearse_like_kaggle(own_workshop.dataset, own_workshop.competition, tmp_path / "out", tmp_path, limits=limits)
    page = (tmp_path / "out" / "kernel.html").read_text()
    if cgroup:
        assert str(error.value) == (
            f"{path}: out of memory: exceeded 0.6 GB, 1 processes killed; "
            f"Kaggle kills such a notebook; see {tmp_path}/out/kernel.html"
        )
    else:
        assert str(error.value).startswith(f"{path}: failed with CalledProcessError: Command ")
        assert "MemoryError" in page, "the page has no message of the script"
    assert "CalledProcessError" in page


def test_a_cell_that_runs_out_of_memory_is_reported_with_the_limit(
    here: None, own_workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing.dry_run.limits, "make_group", lambda memory: contextlib.nullcontext())
    path = write_notebook(own_workshop.bundle, "import numpy; numpy.ones(10**9, numpy.uint8)")
    limits = Limits(cpus=4, memory=600 * 10**6, file=10**9)
    with pytest.raises(RehearsalError) as error:
        rehearse_like_kaggle(own_workshop.dataset, own_workshop.competition, tmp_path / "out", tmp_path, limits=limits)
    assert str(error.value).startswith(f"{path}: failed with MemoryError (limit 0.6 GB): Unable to allocate 954. MiB")


def test_hooks_refuse_network_sockets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packing.dry_run.walls.shutil.which", lambda name: None)
    walls = build_walls([tmp_path / "input"], tmp_path / "hooks")
    assert isinstance(walls, Walls) and walls.prefix == ()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(walls.python_path)}
    for program, code in (("import asyncio; asyncio.run(asyncio.sleep(0))", 0), ("import socket; socket.socket()", 1)):
        finished = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
        assert finished.returncode == code, finished.stderr


def test_an_unsupported_python_is_skipped(tmp_path: Path) -> None:
    old = tmp_path / "python2.7"
    old.write_text("#!/bin/sh\necho 2 7\n")
    broken = tmp_path / "python3.12"
    broken.write_text("#!/bin/sh\nexit 127\n")
    kaggles = tmp_path / "kaggles"
    kaggles.write_text("#!/bin/sh\necho 3 12\n")
    for path in (old, broken, kaggles):
        path.chmod(0o755)
    assert find_interpreter([str(old), str(broken), "absent", str(kaggles)]) == (str(kaggles), (3, 12))
    with pytest.raises(RehearsalError) as error:
        find_interpreter([str(old), "absent"])
    assert str(error.value) == f"--python: found no Python 3.11 to 3.13 among {old}, absent; name one"


def test_a_failed_installation_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.dry_run.environment, "PACKAGES", {sys.version_info[:2]: ("absent-of-vitrine==1",)})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(
        RehearsalError, match=r"cannot make the environment: ERROR: No matching distribution found for absent-of-v"
    ):
        prepare_image(tmp_path, sys.executable)
    assert not list(tmp_path.rglob(MARKER))


IMAGES = sorted(BUILD.glob(f"image-3.*/{MARKER}"))


@pytest.mark.skipif(
    not (IMAGES and ONNXRUNTIME.find_wheels(BUILD / "wheels", IMAGES[-1].parent.name[-4:].replace(".", ""))),
    reason="needs build/wheels (pack --wheels) and build/image-3.* (dry-run --like-kaggle)",
)
def test_with_real_wheels_the_first_prediction_takes_less_than_a_minute(workshop: Workshop, tmp_path: Path) -> None:
    version = IMAGES[-1].parent.name.removeprefix("image-")
    wheels = ONNXRUNTIME.find_wheels(BUILD / "wheels", version.replace(".", ""))
    packed = pack(workshop.manifest, workshop.onnx, tmp_path / "bundle", NAMES, wheels=wheels)
    inside = IMAGES[-1].parent / "bin" / "python"
    absent = subprocess.run([inside, "-c", "import onnxruntime"], capture_output=True, text=True, check=False)
    assert "No module named 'onnxruntime'" in absent.stderr
    rehearsed = rehearse_like_kaggle(packed.dataset, workshop.competition, tmp_path / "out", BUILD, python=str(inside))
    assert rehearsed.first_prediction is not None and rehearsed.first_prediction < 60
    page = (tmp_path / "out" / "kernel.html").read_text()
    assert "installed onnxruntime_gpu-1.26.0" in page and "onnxruntime 1.26.0, Python" in page
    still = subprocess.run([inside, "-c", "import onnxruntime"], capture_output=True, text=True, check=False)
    assert "No module named 'onnxruntime'" in still.stderr, "the environment was changed"
