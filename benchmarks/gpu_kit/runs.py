"""GPU steps about whole runs: kernel, pytest and train."""

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_kit.harness import (
    CPU,
    EXPECTED,
    LIMITS,
    NO_GPU,
    TRIAL,
    WORK,
    empty_folder,
    judge,
    keep,
    kill_when,
    run,
)
from benchmarks.kernel import write_sample
from inference.manifest.file import MANIFEST_NAME, read_manifest

COPIES = 1 if TRIAL else 10
"""Of each of the museum's 600 test images, for the runs that are cut short."""
TESTS = ("inference/models/test_sessions.py", "inference/models/test_runners.py", "roads/test_kernel.py")
GPU_TESTS = ("roads/test_precisions.py", "roads/test_endurance.py", "inference/models/test_wheels.py")
"""Run on a GPU only: a trial on the CPU takes too long with them."""
EXHIBITS, EPOCHS = (200, 2) if TRIAL else (3000, 8)


def run_bundle(bundle: Path, images: Path, sample: Path, out: Path, *more: object, **how: Any) -> dict[str, Any]:
    """Run the packed script as a kernel does, and return its run_log.json."""
    given = ["--bundle", bundle, "--images", images, "--sample", sample, "--out", out]
    run("-I", bundle / "inference.pyz", *given, *more, **how)
    log: dict[str, Any] = json.loads(out.with_name("run_log.json").read_text(encoding="utf-8"))
    return log


def kernel() -> None:
    """The demo on the GPU, then its bundle in fp16: compared with the CPU, as a notebook, killed, in half its time."""
    printed = run("build_kernel.py", "demo", "--out", WORK / "demo")
    judge(bool(re.search(r"blend, .*group +0\.90", printed)), "the demo's F2 is the CPU's, 0.90")
    museum, onnx, bundle = WORK / "demo" / "museum", WORK / "demo" / "onnx", WORK / "bundle" / "dataset"
    run("build_kernel.py", "export", "--images", museum / "test", "--out", onnx)
    run("build_kernel.py", "pack", "--onnx", onnx, "--out", WORK / "bundle", "--accelerator", "L4")
    sample, scores, logs = museum / "sample_submission.csv", {}, {}
    for name, precision in (("cpu", "fp32"), ("fp32", "fp32"), ("fp16", "fp16")):
        out, env = WORK / "runs" / name, NO_GPU if name == "cpu" else {}
        more = ["--strict", "--fresh", "--predictions", out / "kept", "--precision", precision]
        log = logs[name] = run_bundle(bundle, museum / "test", sample, out / "submission.csv", *more, env=env)
        scores[name] = {path.stem: np.load(path).astype(np.float32) for path in sorted((out / "kept").glob("*.npy"))}
        provider = CPU if name == "cpu" else EXPECTED
        good = log["providers"] == [provider] and set(log["precisions"].values()) == {precision}
        judge(good, f"{name}: on {log['providers']} in {log['precisions']}, {log['images_per_second']} images/s")
    for name in ("fp32", "fp16"):
        difference = max(float(np.abs(scores[name][model] - scores["cpu"][model]).max()) for model in scores["cpu"])
        judge(difference < LIMITS[name], f"{name}: probabilities differ from the CPU's by {difference:.1e}")
    logs["notebook"] = run_notebook(museum)
    keep("kernel", logs)
    cut_short(bundle, museum, logs)
    keep("kernel", logs)


def run_notebook(museum: Path) -> dict[str, Any]:
    """Run the code of the packed notebook in a tree like /kaggle, and return its run_log.json."""
    root = empty_folder(WORK / "kaggle")
    (root / "working").mkdir()
    (root / "input").mkdir()
    (root / "input" / "vitrine-bundle").symlink_to(WORK / "bundle" / "dataset")
    (root / "input" / "imet-2019-fgvc6").symlink_to(museum)
    notebook = json.loads((WORK / "bundle" / "kernel" / "kernel.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (root / "notebook.py").write_text("\n\n".join(cells), encoding="utf-8")
    printed = run(root / "notebook.py", env={"KAGGLE_ROOT": str(root), "MPLBACKEND": "agg"})
    log: dict[str, Any] = json.loads((root / "working" / "run_log.json").read_text(encoding="utf-8"))
    good = f"{EXPECTED}, onnxruntime" in printed and "valid, 600 rows" in printed
    judge(good, f"the notebook's trial ran on {EXPECTED}")
    judge(TRIAL or "DEGRADED" not in printed, f"nothing is degraded; it chose {log['notes'] or log['precisions']}")
    return log


def cut_short(bundle: Path, museum: Path, logs: dict[str, Any]) -> None:
    """A long run undisturbed, killed half way and continued, and with half its time."""
    many = empty_folder(WORK / "many")
    (many / "test").mkdir()
    for path in sorted((museum / "test").iterdir()):
        for copy in range(COPIES):
            (many / "test" / f"{path.stem}{copy:02}{path.suffix}").hardlink_to(path)
    sample = write_sample(many / "sample.csv", sorted(path.stem for path in (many / "test").iterdir()))
    whole, killed, half = (many / name / "submission.csv" for name in ("whole", "killed", "half"))
    logs["whole"] = run_bundle(bundle, many / "test", sample, whole, "--strict")
    chunks = logs["whole"]["images"] // read_manifest(bundle / MANIFEST_NAME).runtime.batch_size
    marks = killed.parent / "submission.csv.work" / "chunks.jsonl"
    command = ["-I", bundle / "inference.pyz", "--bundle", bundle, "--images", many / "test", "--sample", sample]

    def is_half_done() -> bool:
        return marks.exists() and marks.read_bytes().count(b"\n") >= chunks // 2

    kill_when([*command, "--out", killed], is_half_done, f"killed after half of {chunks} chunks")
    logs["continued"] = run_bundle(bundle, many / "test", sample, killed, "--strict")
    judge("continuing an earlier run" in str(logs["continued"]["notes"]), "the next run continues the killed one")
    one, other = (path.read_text(encoding="utf-8").splitlines() for path in (whole, killed))
    others = sum(row != theirs for row, theirs in zip(one, other, strict=True))
    judge(others <= len(one) // 200, f"{others} of {len(one)} rows differ from the undisturbed run's (last bits may)")
    limit = logs["whole"]["seconds"]["total"] / 2
    more = ["--time-limit", f"{limit:.2f}"]
    logs["half"] = run_bundle(bundle, many / "test", sample, half, *more, expected=(0, 3))
    spent = logs["half"]["seconds"]["total"]
    judge(spent <= limit, f"with {limit:.2f} s it took {spent:.2f} s; degraded: {logs['half']['degraded']}")


def pytest() -> None:
    """Run the tests of sessions and whole runs without and with the GPU; report what only the GPU fails."""
    # Only the needed plugin: others warn. The versions here are not those of constraints.txt, so warnings pass.
    given = ["-p", "xdist.plugin", "-n", min(os.cpu_count() or 1, 12), "--dist", "worksteal", "--tb=short", "-rfE"]
    given += [
        "-o",
        "filterwarnings=default",
        "-p",
        "no:cacheprovider",
        *(f"tests/{name}" for name in (TESTS if TRIAL else TESTS + GPU_TESTS)),
    ]
    failed: dict[str, set[str]] = {}
    for name, env in (("without", NO_GPU), ("with", {})):
        printed = run("-m", "pytest", *given, env=env | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, expected=(0, 1))
        lines = [line for line in printed.splitlines() if line.startswith(("FAILED", "ERROR"))]
        failed[name] = {line.split(" - ")[0] for line in lines}
    only = sorted(failed["with"] - failed["without"])
    keep("pytest", {"only with the GPU": only, "also without it": sorted(failed["without"])})
    judge(not failed["without"], f"{len(failed['without'])} tests fail without the GPU: {sorted(failed['without'])}")
    judge(not only, f"{len(only)} tests fail only with the GPU: {only}")


def train() -> None:
    """Run `training fit` on the museum in bf16, killed and resumed, and predict again what it held out."""
    museum, zoo, recipe = WORK / "train" / "museum", WORK / "train" / "zoo", WORK / "train" / "everything.toml"
    run("-m", "demo", "--out", museum, "--train", EXHIBITS, "--test", 1)
    empty_folder(zoo)
    text = Path("demo/recipes/everything.toml").read_text(encoding="utf-8")
    recipe.write_text(re.sub(r"epochs = \d+", f"epochs = {EPOCHS}", text), encoding="utf-8")
    command = ["-m", "training", "fit", recipe, "--data", museum, "--out", zoo, "--fold", 0, "--allow-missing"]
    command += ["--workers", min(os.cpu_count() or 1, 8), "--mixed-precision", "bf16"]
    kill_when(command, (zoo / "everything_f0.state").exists, "killed after the first epoch")
    printed = run(*command, "--resume")
    judge("everything_f0: F2" in printed, "resumed, and a network was trained")
    with (zoo / "everything_f0.metrics.csv").open(newline="", encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    falls = float(epochs[-1]["loss"]) < float(epochs[0]["loss"])
    judge(len(epochs) == EPOCHS and falls, f"seconds of the {len(epochs)} epochs: {[row['seconds'] for row in epochs]}")
    path = zoo / "everything_f0.oof.npy"
    before = np.load(path).astype(np.float32)
    run("-m", "training", "oof", "--manifest", zoo / MANIFEST_NAME, "--data", museum, "--allow-missing")
    difference = float(np.abs(np.load(path).astype(np.float32) - before).max())
    judge(difference < 1e-3, f"the predictions of `fit` in bf16 and of `oof` in fp32 differ by {difference:.1e}")
    keep("train", {"epochs": epochs, "out of fold": difference})
