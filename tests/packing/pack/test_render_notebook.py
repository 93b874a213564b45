"""The rendered notebook, executed in a tree like /kaggle."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import nbclient
import nbformat
import pytest

from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME
from tests.conftest import NAMES, ROOT, Workshop

TEMPLATE = ROOT / "kernel_template.ipynb"
LAYOUTS = {
    "older": (NAMES.slug, NAMES.competition),
    "newer": (f"datasets/{NAMES.owner}/{NAMES.slug}", f"competitions/{NAMES.competition}"),
}


def test_every_cell_of_the_template_has_a_unique_id_and_no_output() -> None:
    cells = json.loads(TEMPLATE.read_text())["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.fixture
def kaggle(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /kaggle; `mount` fills it."""
    root = tmp_path / "kaggle"
    (root / "working").mkdir(parents=True)
    monkeypatch.setenv("KAGGLE_ROOT", str(root))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return root


def mount(workshop: Workshop, root: Path, layout: str) -> Path:
    bundle, competition = (root / "input" / place for place in LAYOUTS[layout])
    shutil.copytree(workshop.dataset, bundle)
    shutil.copytree(workshop.images, competition / "test")
    shutil.copy(workshop.sample, competition / "sample_submission.csv")
    return bundle


def execute(workshop: Workshop, first: str = "", manifest: Path | None = None) -> str:
    """Run the notebook after the code `first`; return its printed output. Raises CellExecutionError.

    `manifest`: put the hash of this file into the notebook.
    """
    text = (workshop.bundle / "kernel" / "kernel.ipynb").read_text()
    if manifest:
        text = text.replace(hash_file(workshop.dataset / MANIFEST_NAME), hash_file(manifest))
    notebook = nbformat.reads(text, as_version=4)
    if first:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return "".join(output.get("text", "") for output in outputs) + f"\n{pictures} pictures\n"


@pytest.mark.filterwarnings("ignore")  # of zmq and tornado, in another process
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_notebook_finds_the_bundle_runs_it_and_shows_predictions(
    layout: str, workshop: Workshop, kaggle: Path
) -> None:
    mount(workshop, kaggle, layout)
    output = execute(workshop)
    assert f"{kaggle}/working/submission.csv: valid, 20 rows" in output
    assert "20/20 images" in output and "3 pictures" in output  # stages, counts, and the grid of images
    assert "first prediction " in output and "on CPUExecutionProvider" in output
    assert " s of 32400 s" in output, "the time limit is not the manifest's"
    assert "\x1b[1;31mDEGRADED: packed for T4x2, found 0 of 2 GPUs; running on the CPU\x1b[0m" in output
    assert re.search(r"\ndegraded +no\n", output) and "failed" not in output
    assert sorted(path.name for path in (kaggle / "working").iterdir()) == ["run_log.json", "submission.csv"]


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_refuses_a_script_with_another_hash(workshop: Workshop, kaggle: Path) -> None:
    script = mount(workshop, kaggle, "older") / "inference.pyz"
    script.write_bytes(script.read_bytes() + b" ")
    with pytest.raises(
        nbclient.exceptions.CellExecutionError,
        match=r"inference\.pyz: found sha256 \w+; wanted \w+; upload the bundle again",
    ):
        execute(workshop)
    assert list((kaggle / "working").iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_refuses_a_manifest_with_another_hash(workshop: Workshop, kaggle: Path) -> None:
    path = mount(workshop, kaggle, "newer") / MANIFEST_NAME
    path.write_text(path.read_text().replace('"time_limit": 32400', '"time_limit": 32401'))
    message = rf"weights_manifest\.json: found sha256 {hash_file(path)}; wanted \w+; upload the bundle again"
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=message):
        execute(workshop)
    assert list((kaggle / "working").iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_if_the_script_fails_the_submission_has_prior_labels_and_a_red_line_says_so(
    workshop: Workshop, kaggle: Path
) -> None:
    (mount(workshop, kaggle, "older") / "tag.onnx").write_bytes(b"damaged")
    output = execute(workshop)
    assert output.count("error: weights_manifest.json: `models[2].onnx.fp32.sha256`: ") == 2, "both starts"
    assert "DEGRADED: the script ended with exit code 1; it is not started again; the submission is the last" in output
    assert "DEGRADED: the script has not written run_log.json: " in output
    assert "submission.csv: valid, 20 rows" in output


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_says_what_to_attach(workshop: Workshop, kaggle: Path) -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=r"attach tiny-bundle with Add Input"):
        execute(workshop)


@pytest.mark.filterwarnings("ignore")
def test_a_missing_onnxruntime_is_reported_with_what_to_do(workshop: Workshop, kaggle: Path) -> None:
    mount(workshop, kaggle, "older")
    output = execute(workshop, "import importlib.util\nimportlib.util.find_spec = lambda name: None")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    reason = f"onnxruntime is not installed, and the bundle has no wheel for {python}; pack it with --wheels"
    assert f"\x1b[1;31mDEGRADED: {reason}\x1b[0m" in output
    assert "submission.csv: valid, 20 rows" in output


@pytest.mark.filterwarnings("ignore")
def test_a_wheel_with_another_hash_is_not_installed(workshop: Workshop, kaggle: Path) -> None:
    bundle = mount(workshop, kaggle, "older")
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    document["runtime"]["wheels"] = [{"file": "onnxruntime-1-py3-none-any.whl", "sha256": "0" * 64}]
    (bundle / MANIFEST_NAME).write_text(json.dumps(document))
    (bundle / "onnxruntime-1-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(
        nbclient.exceptions.CellExecutionError, match=r"onnxruntime-1-py3-none-any\.whl: found sha256 \w+; wanted 000"
    ):
        execute(workshop, manifest=bundle / MANIFEST_NAME)


# Simulates two T4s in the notebook's process; the script's process finds none.
GPUS = """
import sys
sys.path.insert(0, {script!r})
import inference.models.devices
t4 = inference.models.devices.Device("Tesla T4", (7, 5), 15_828_320_256)
inference.models.devices.read_devices = lambda: (t4, t4)
"""


@pytest.mark.filterwarnings("ignore")
def test_a_gpu_that_onnxruntime_does_not_use_is_reported_in_red(workshop: Workshop, kaggle: Path) -> None:
    script = mount(workshop, kaggle, "older") / "inference.pyz"
    output = execute(workshop, GPUS.format(script=str(script)))
    assert output.count("Tesla T4, compute capability 7.5, 15.8 GB\n") == 2
    assert "\x1b[1;31mDEGRADED: ONNX Runtime does not use the GPU (" in output and "packed for T4x2" not in output
    assert "submission.csv: valid, 20 rows" in output


@pytest.mark.filterwarnings("ignore")
def test_the_cpu_is_used_if_a_batch_crashes_on_the_gpu(workshop: Workshop, kaggle: Path) -> None:
    script = mount(workshop, kaggle, "older") / "inference.pyz"
    die = """
import os, subprocess
really = subprocess.run
def run(command, env, **options):
    if "CUDA_VISIBLE_DEVICES" not in env:
        return subprocess.CompletedProcess(command, -6, "", "CUDA error 209: no kernel image is available\\n")
    return really(command, env=env, **options)
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
subprocess.run = run
"""
    output = execute(workshop, GPUS.format(script=str(script)) + die)
    reason = "CUDA error 209: no kernel image is available"
    assert f"DEGRADED: the GPU cannot be used ({reason}); running on the CPU\x1b[0m" in output
    assert " s after the notebook's start: " in output and "submission.csv: valid, 20 rows" in output


@pytest.mark.filterwarnings("ignore")
def test_exit_code_3_does_not_fail_and_the_reasons_are_red(own_workshop: Workshop, kaggle: Path) -> None:
    bundle = mount(own_workshop, kaggle, "newer")
    script = bundle / "inference.pyz"
    with zipfile.ZipFile(script) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["__main__.py"] = b"""
import json, pathlib, sys
from inference.__main__ import main
main()
path = pathlib.Path(sys.argv[sys.argv.index("--out") + 1]).with_name("run_log.json")
log = json.loads(path.read_text())
path.write_text(json.dumps(log | {"degraded": ["little time was left", "tag/hflip dropped"]}))
sys.exit(3)
"""
    with zipfile.ZipFile(script, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    document["runtime"]["script"]["sha256"] = hash_file(script)
    (bundle / MANIFEST_NAME).write_text(json.dumps(document))
    output = execute(own_workshop, manifest=bundle / MANIFEST_NAME)
    assert "\x1b[1;31mDEGRADED: little time was left\x1b[0m" in output
    assert "\x1b[1;31mDEGRADED: tag/hflip dropped\x1b[0m" in output
    assert "submission.csv: valid, 20 rows" in output


@pytest.mark.filterwarnings("ignore")
def test_without_matplotlib_the_page_has_text_only(workshop: Workshop, kaggle: Path) -> None:
    mount(workshop, kaggle, "older")
    output = execute(workshop, "import sys\nsys.modules['matplotlib'] = sys.modules['matplotlib.pyplot'] = None")
    assert "show_stages: no chart: import of matplotlib" in output and "\n0 pictures" in output
    assert any(name in output for name in ("culture::greek", "tag::birds", "tag::trees"))


@pytest.mark.filterwarnings("ignore")
def test_the_page_shows_scores_without_onnxruntime_in_the_notebooks_python(workshop: Workshop, kaggle: Path) -> None:
    mount(workshop, kaggle, "older")
    absent = "import importlib.util, sys\nimportlib.util.find_spec = lambda name: name\n"
    absent += "sys.modules['onnxruntime'] = sys.modules['matplotlib'] = sys.modules['matplotlib.pyplot'] = None"
    output = execute(workshop, absent)
    ids = [line.split(",")[0] for line in workshop.sample.read_text().splitlines()[1:]]
    shown = [line for line in output.splitlines() if line.split("  ")[0] in ids]
    assert len(shown) == 12 and all(re.search(r"  (culture|tag)::\w+ [01]\.\d\d(  |$)", line) for line in shown)
    assert "cannot show" not in output and "failed" not in output


@pytest.mark.filterwarnings("ignore")
def test_a_failing_part_of_the_page_does_not_affect_the_submission(workshop: Workshop, kaggle: Path) -> None:
    mount(workshop, kaggle, "older")
    (kaggle / "input" / NAMES.competition / "train.csv").write_text("id,labels\nx,1\n")
    output = execute(
        workshop,
        "import numpy, matplotlib.pyplot\nnumpy.load = None\nmatplotlib.pyplot.subplots = lambda *a, **k: 1 / 0",
    )
    assert "show_stages failed (ZeroDivisionError('division by zero')); the submission is not affected" in output
    assert (
        "not compared with the training labels: " in output and "no `attribute_ids` column; found id, labels" in output
    )
    assert "show_labels failed (ZeroDivisionError(" in output
    assert "cannot show the scores: TypeError(" in output and "show_images failed" in output
    assert "submission.csv: valid, 20 rows" in output


@pytest.mark.filterwarnings("ignore")
def test_label_counts_are_shown_beside_those_of_the_training_table(workshop: Workshop, kaggle: Path) -> None:
    mount(workshop, kaggle, "older")
    shutil.copy(workshop.home / "train.csv", kaggle / "input" / NAMES.competition / "train.csv")
    assert "1.75 labels per image in train.csv" in execute(workshop)  # 2 + 3 + 1 + 1 labels of 4 images
