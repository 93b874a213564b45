"""The rendered notebook, executed in a tree like /kaggle."""

import json
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

from inference.manifest import MANIFEST_NAME
from tests.conftest import NAMES, Workshop

LAYOUTS = {
    "older": (NAMES.slug, NAMES.competition),
    "newer": (f"datasets/{NAMES.owner}/{NAMES.slug}", f"competitions/{NAMES.competition}"),
}


@pytest.fixture
def kaggle(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /kaggle; `mount` fills it."""
    root = tmp_path / "kaggle"
    (root / "working").mkdir(parents=True)
    monkeypatch.setenv("KAGGLE_ROOT", str(root))
    return root


def mount(workshop: Workshop, root: Path, layout: str) -> Path:
    bundle, competition = (root / "input" / place for place in LAYOUTS[layout])
    shutil.copytree(workshop.dataset, bundle)
    shutil.copytree(workshop.images, competition / "test")
    shutil.copy(workshop.sample, competition / "sample_submission.csv")
    return bundle


def execute(workshop: Workshop) -> str:
    """The notebook's printed output; raises CellExecutionError as Kaggle would report it."""
    notebook = nbformat.read(workshop.bundle / "kernel" / "kernel.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return "".join(output.get("text", "") for output in outputs) + f"\n{pictures} pictures\n"


@pytest.mark.filterwarnings("ignore")  # of zmq and tornado, in a process that is not ours
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_notebook_finds_the_bundle_runs_it_and_shows_predictions(
    layout: str, workshop: Workshop, kaggle: Path
) -> None:
    mount(workshop, kaggle, layout)
    told = execute(workshop)
    assert f"{kaggle}/working/submission.csv: valid, 20 rows" in told
    assert "20/20 images" in told and "3 pictures" in told  # stages, counts, and the grid of images
    assert "first prediction " in told and "on CPUExecutionProvider" in told
    assert "\x1b[1;31mDEGRADED: packed for T4x2, found 0 of 2 GPUs: runs on the CPU\x1b[0m" in told
    assert any(name in told for name in ("culture::greek", "tag::birds", "tag::trees"))
    assert sorted(path.name for path in (kaggle / "working").iterdir()) == ["run_log.json", "submission.csv"]


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_refuses_a_script_that_is_not_the_declared_one(workshop: Workshop, kaggle: Path) -> None:
    script = mount(workshop, kaggle, "older") / "inference.pyz"
    script.write_bytes(script.read_bytes() + b" ")
    with pytest.raises(
        nbclient.exceptions.CellExecutionError, match=r"inference\.pyz has \w+, wanted \w+: upload the bundle again"
    ):
        execute(workshop)
    assert list((kaggle / "working").iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_fails_when_the_script_fails(workshop: Workshop, kaggle: Path) -> None:
    (mount(workshop, kaggle, "older") / "tag.onnx").write_bytes(b"damaged")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=r"inference\.pyz ended with exit code 1"):
        execute(workshop)


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_says_what_to_attach(workshop: Workshop, kaggle: Path) -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=r"attach tiny-bundle with Add Input"):
        execute(workshop)


@pytest.mark.filterwarnings("ignore")
def test_without_onnxruntime_and_without_a_wheel_the_notebook_says_so(workshop: Workshop, kaggle: Path) -> None:
    mount(workshop, kaggle, "older")
    notebook = nbformat.read(workshop.bundle / "kernel" / "kernel.ipynb", as_version=4)
    hide = "import importlib.util\nimportlib.util.find_spec = lambda name: None"
    notebook.cells.insert(1, nbformat.v4.new_code_cell(hide))
    with pytest.raises(
        nbclient.exceptions.CellExecutionError, match=r"onnxruntime is not installed and the bundle carries no wheel"
    ):
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()


@pytest.mark.filterwarnings("ignore")
def test_a_carried_wheel_with_another_hash_is_not_installed(workshop: Workshop, kaggle: Path) -> None:
    bundle = mount(workshop, kaggle, "older")
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    document["runtime"]["wheels"] = [{"file": "onnxruntime-1-py3-none-any.whl", "sha256": "0" * 64}]
    (bundle / MANIFEST_NAME).write_text(json.dumps(document))
    (bundle / "onnxruntime-1-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(
        nbclient.exceptions.CellExecutionError, match=r"onnxruntime-1-py3-none-any\.whl has \w+, wanted 000"
    ):
        execute(workshop)
