"""GPU steps about sessions: check, smoke, options, export and gpu."""

import json
import os
import sys
import time
from collections import Counter
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import benchmarks.gpu
from benchmarks.gpu_kit.harness import CPU, CUDA, EXPECTED, LIMITS, TRIAL, WORK, draw_noise, judge, keep, run
from benchmarks.kernel import pack_random
from benchmarks.peer_kernel import NETWORKS as SIZES
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.models.devices import read_devices
from inference.models.sessions import ModelSession, make_options
from inference.models.wheels import load_libraries

VIEWS = ("identity", "hflip")
SMOKE = {"test_resnet": 96, "test_byobnet": 96, "test_efficientnet": 96, "test_convnext": 96, "test_vit": 160}
"""Small networks of several families: the shortened CUDA library has all their kernels."""
NETWORKS = ("resnet34", "legacy_seresnext50_32x4d", "legacy_seresnext101_32x4d", "pnasnet5large")
"""The most informative for their seconds come first."""
BATCH, PEAK = 128, 989
"""The fp16 peak in TFLOP/s is that of an H100 or H200 SXM without sparsity."""


def check() -> None:
    """Print versions, and run one convolution on CUDA: without it no other step is worth its time."""
    from onnx import TensorProto, helper, numpy_helper

    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPU cores, {Path(onnxruntime.__file__).parent}")
    installed = {distribution.metadata["Name"].lower(): distribution.version for distribution in distributions()}
    packages = (
        "onnxruntime",
        "onnxruntime-gpu",
        "torch",
        "nvidia-cudnn-cu13",
        "nvidia-cublas",
        "timm",
        "onnx",
        "numpy",
    )
    print(", ".join(f"{name} {installed[name]}" for name in packages if name in installed))
    weights = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None, None, None]) for name in "xy")
    node = helper.make_node("Conv", ["x", "weights"], ["y"])
    graph = helper.make_graph([node], "conv", [x], [y], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    image, answers = np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype(np.float32), []
    for provider in (EXPECTED, CPU):
        started = time.monotonic()
        session = onnxruntime.InferenceSession(model, providers=list(dict.fromkeys((provider, CPU))))
        answers.append(session.run(None, {"x": image})[0])
        found = session.get_providers()[0]
        judge(found == provider, f"asked for {provider}, got {found}, in {time.monotonic() - started:.1f} s")
    judge(bool(np.abs(answers[0] - answers[1]).max() < 2e-2), "both give the same output")


def count_nodes(path: Path, images: NDArray[np.uint8]) -> dict[str, int]:
    """Nodes of a graph per provider, and the kinds of those that stay on the CPU."""
    settings = make_options()
    settings.enable_profiling, settings.profile_file_prefix = True, str(WORK / "profile")
    session = onnxruntime.InferenceSession(path, settings, providers=list(dict.fromkeys((EXPECTED, CPU))))
    session.run(None, {"image": images, "views": np.array([0, 1])})
    profile = Path(session.end_profiling())
    nodes: Counter[str] = Counter()
    for event in json.loads(profile.read_text(encoding="utf-8")):
        given = event.get("args", {})
        if event.get("cat") == "Node" and given.get("provider"):
            nodes[given["provider"]] += 1
            if given["provider"] != EXPECTED:
                nodes[f"on the CPU: {given['op_name']}"] += 1
    profile.unlink()
    return dict(nodes)


def smoke() -> None:
    """Networks of several families through ModelSession, on CUDA with the CPU's output; then the notebook's trial."""
    print(*(read_devices() or ["the driver shows no device"]), sep="\n")
    print(f"load_libraries() misses: {', '.join(load_libraries()) or 'nothing'}")
    found: dict[str, Any] = {}
    for name, size in list(SMOKE.items())[: 2 if TRIAL else None]:
        folder = WORK / "smoke" / name
        bundle = pack_random(folder, {name: size}, 16, ("fp16",))
        manifest = read_manifest(bundle / MANIFEST_NAME)
        outputs = len((bundle / manifest.labels.file).read_text(encoding="utf-8").splitlines()) - 1
        images = draw_noise(16, size)
        for precision, entry in manifest.models[0].onnx.items():
            reference = ModelSession(name, bundle / entry.file, outputs).predict(images, VIEWS)
            session = ModelSession(name, bundle / entry.file, outputs, gpus=int(not TRIAL))
            answers = [session.predict(images[:count], VIEWS, full=16) for count in (16, 3)]
            difference = max(float(np.abs(answer - reference[: len(answer)]).max()) for answer in answers)
            nodes = count_nodes(bundle / entry.file, images)
            good = session.provider == EXPECTED and difference < LIMITS[precision]
            judge(good, f"{name} {precision}: {session.provider}, differs by {difference:.1e}; {nodes}")
            found[f"{name} {precision}"] = {"provider": session.provider, "difference": difference, "nodes": nodes}
            keep("smoke", found)
    printed = run("-m", "inference.models.devices", "--bundle", bundle, "--images", folder / "test")
    judge(EXPECTED in printed, "the trial batch of the notebook")


def list_networks() -> list[str]:
    """The benchmark's networks, or those that GPU_NETWORKS names."""
    return os.environ.get("GPU_NETWORKS", NETWORKS[0] if TRIAL else " ".join(NETWORKS)).split()


def export() -> None:
    """Export in advance what `gpu` needs: it takes a CPU core and minutes, while other steps use the GPU."""
    for name in [] if TRIAL else list_networks():
        started = time.monotonic()
        pack_random(WORK / "benchmarks" / name / "gpu-cuda", {name: SIZES[name]}, BATCH, ("fp16",))
        print(f"{name}: exported in {time.monotonic() - started:.0f} s", flush=True)


def gpu() -> None:
    """Run benchmarks.gpu one network at a time, so that a time limit costs only the last ones."""
    given = ["--device", "cpu", "--rounds", "1", "--files", "16"] if TRIAL else ["--rounds", "2", "--files", "2000"]
    given += [] if TRIAL else ["--peak-tflops", str(PEAK), "--batches", str(BATCH)]
    for name in list_networks():
        started, out = time.monotonic(), WORK / "benchmarks" / name
        benchmarks.gpu.NETWORKS = {name: SIZES[name]}
        print(f"\n{name}", flush=True)
        code = benchmarks.gpu.main([*given, "--out", str(out)])
        judge(code == 0, f"{name}: exit code {code} after {time.monotonic() - started:.0f} s")
        if code == 0:
            keep(f"gpu_{name}", json.loads((out / "gpu.json").read_text(encoding="utf-8")))


def options() -> None:
    """Try options of the CUDA provider that the project leaves alone: seconds to the first batch, then images/s."""
    sizes = {"test_resnet": 96} if TRIAL else {name: SIZES[name] for name in list_networks()[1:2]}
    found: dict[str, Any] = {}
    for name, size in sizes.items():
        bundle = pack_random(WORK / "benchmarks" / name / "gpu-cuda", {name: size}, BATCH, ("fp16",))
        images = draw_noise(8 if TRIAL else BATCH, size)
        for layout in ({}, {"prefer_nhwc": "1"}):
            for search in ({}, {"cudnn_conv_algo_search": "HEURISTIC"}):
                title = " ".join([name, *(f"{key}={value}" for key, value in (layout | search).items())])
                cuda = (CUDA, {"arena_extend_strategy": "kSameAsRequested"} | layout | search)
                began = time.perf_counter()
                session = onnxruntime.InferenceSession(
                    bundle / f"{name}.fp16.onnx",
                    make_options(),
                    providers=[CPU] if TRIAL else [cuda, CPU],
                    disabled_optimizers=["Pad_Fusion"],
                )
                spent = [time.perf_counter() - began]
                for _ in range(3 if TRIAL else 10):
                    began = time.perf_counter()
                    session.run(None, {"image": images, "views": np.array([0])})
                    spent.append(time.perf_counter() - began)
                rate = len(images) / min(spent[2:])
                found[title] = {"load": spent[0], "first batch": spent[1], "images/s": rate}
                judge(
                    True, f"{title}: loads in {spent[0]:.1f} s, first batch {spent[1]:.1f} s, then {rate:.0f} images/s"
                )
                keep("options", found)
