"""The dry run of the notebook, mostly in this Python, which has ONNX Runtime, instead of Kaggle's image."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import packing.dry_run.environment
import packing.dry_run.limits
import packing.dry_run.run_notebook
from inference.basics.errors import RehearsalError
from packing.dry_run.cgroups import make_group
from packing.dry_run.environment import MARKER, find_interpreter, prepare_image
from packing.dry_run.limits import Limits
from packing.dry_run.run_notebook import rehearse_like_kaggle
from packing.dry_run.walls import Walls, build_walls
from packing.pack.fetch_wheels import ONNXRUNTIME
from packing.pack.write_bundle import pack
from tests.conftest import NAMES, ROOT, Workshop

BUILD = ROOT / "build"
pytestmark = pytest.mark.filterwarnings("ignore")  # of zmq, tornado and nbconvert


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use this Python instead of an environment similar to Kaggle's image."""
    monkeypatch.setattr(packing.dry_run.run_notebook, "prepare_image", lambda cache, python: Path(sys.executable))


def write_notebook(bundle: Path, *cells: str) -> Path:
    """Replace the bundle's notebook by one with these cells."""
    names = f'OWNER, SLUG, COMPETITION = "{NAMES.owner}", "{NAMES.slug}", "{NAMES.competition}"'
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (names, *cells)])
    path = bundle / "kernel" / "kernel.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("layout", ["newer", "older"])
def test_the_notebook_ends_in_a_valid_submission_and_a_page_in_both_layouts(
    layout: packing.dry_run.run_notebook.Layout, here: None, workshop: Workshop, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rehearsed = rehearse_like_kaggle(
        workshop.dataset, workshop.images, workshop.sample, out, tmp_path, limit=5, layout=layout
    )
    assert rehearsed.run.images == 5 and rehearsed.first_prediction is not None
    assert 0 < rehearsed.first_prediction < rehearsed.seconds
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
            rehearse_like_kaggle(
                own_workshop.dataset, own_workshop.images, own_workshop.sample, tmp_path / "out", tmp_path
            )
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
        rehearse_like_kaggle(
            own_workshop.dataset, own_workshop.images, own_workshop.sample, tmp_path / "out", tmp_path, time_limit=1
        )
    assert str(error.value) == f"{path}: exceeded its time limit of 1 s; see {tmp_path}/out/kernel.html"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kernel.html"]


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
        rehearse_like_kaggle(
            own_workshop.dataset, own_workshop.images, own_workshop.sample, tmp_path / "out", tmp_path, limits=limits
        )
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
        rehearse_like_kaggle(
            own_workshop.dataset, own_workshop.images, own_workshop.sample, tmp_path / "out", tmp_path, limits=limits
        )
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
    rehearsed = rehearse_like_kaggle(
        packed.dataset, workshop.images, workshop.sample, tmp_path / "out", BUILD, python=str(inside)
    )
    assert rehearsed.first_prediction is not None and rehearsed.first_prediction < 60
    page = (tmp_path / "out" / "kernel.html").read_text()
    assert "installed onnxruntime_gpu-1.26.0" in page and "onnxruntime 1.26.0, Python" in page
    still = subprocess.run([inside, "-c", "import onnxruntime"], capture_output=True, text=True, check=False)
    assert "No module named 'onnxruntime'" in still.stderr, "the environment was changed"
