"""Comparison of Vitrine with torch on an NVIDIA GPU: the same weights in fp16, alternating in one run.

python -m benchmarks.gpu --accelerator T4x2                     the networks of peer_kernel, then their packed script
python -m benchmarks.gpu --peak-tflops 989 --batches 64 128 256
python -m benchmarks.gpu --device cpu                           a trial of this script: one tiny network, fp32

A way is a function from uint8 images to probabilities, both in host memory: ours with ModelSession, torch in eager mode
and compiled, both channels_last. Each runs with the batch size that was fastest in a trial; the fastest round counts.
Then the packed script runs on PNG files, compared with its sessions alone. torch and onnxruntime-gpu share a process,
so both must be built for the same CUDA. With several GPUs, the first is used.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks.kernel import pack_random, run_script
from benchmarks.peer_kernel import NETWORKS, ZOO, load_networks, print_table, summarise
from inference.basics.errors import DeviceMemoryError
from inference.manifest.model import Model
from inference.manifest.values import Precision
from inference.models.sessions import CUDA, ModelSession, explain_cpu
from packing.accelerators import ACCELERATORS, find_accelerator, find_rates
from packing.export.graphs.form import Form
from packing.export.graphs.network import KernelNetwork
from packing.plan.work import count_work
from zoo.networks import Design

TINY = {"test_resnet": 96}
OURS, EAGER, COMPILED = "ours", "torch eager", "torch.compile"
VIEWS = 2
# By device: batch sizes, images per measurement, and PNG files for the packed script.
SIZES = {"cuda": (32, 64, 128), "cpu": (8, 16)}
PICTURES, FILES = {"cuda": 1024, "cpu": 64}, {"cuda": 4000, "cpu": 64}

Batch = NDArray[np.uint8]  # (images, size, size, 3)
Way = Callable[[Batch], NDArray[np.float32]]
Seconds = dict[str, list[dict[str, float]]]  # way -> per round: network -> seconds
Figures = dict[str, Any]


class Reduced(torch.nn.Module):
    """A network in another precision and channels_last, with input and output in float32."""

    def __init__(self, network: torch.nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype).to(memory_format=torch.channels_last), dtype

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (images, labels)."""
        answer: torch.Tensor = self.network(images.to(self.dtype, memory_format=torch.channels_last))
        return answer.float()


def explain_missing() -> str | None:
    """Return the reason why no GPU can be measured, on one line; None if it can."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device; --device cpu runs a trial without one"
    if CUDA not in onnxruntime.get_available_providers():
        return f"onnxruntime cannot use the GPU: {explain_cpu(())}"
    return None


def open_ways(
    model: Model, path: Path, network: torch.nn.Module, outputs: int, device: str, mode: str
) -> dict[str, Way]:
    """Return the ways to run one model. Raises RuntimeError: the session is on another device than requested."""
    session = ModelSession(model.name, path, outputs, gpus=int(device == "cuda"))
    if device == "cuda" and session.provider != CUDA:
        raise RuntimeError(f"{model.name} runs on {session.provider}: {explain_cpu(())}")
    dtype = torch.float16 if device == "cuda" else torch.float32
    form = Form(model.size, model.size, model.mean, model.std, outputs, "sigmoid")
    eager = KernelNetwork(Reduced(network, dtype), form).eval().to(device)
    # One graph per batch size, or an error, so that no part runs in eager mode unnoticed.
    compiled = torch.compile(eager, fullgraph=True, dynamic=False, mode=mode)

    def run_torch(module: Callable[[torch.Tensor], torch.Tensor], batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer: NDArray[np.float32] = module(torch.from_numpy(batch).to(device)).cpu().numpy()
        return answer

    return {
        OURS: lambda batch: session.predict(batch, full=len(batch)),
        EAGER: lambda batch: run_torch(eager, batch),
        COMPILED: lambda batch: run_torch(compiled, batch),
    }


def time_way(way: Way, pictures: Batch, size: int) -> float:
    """Return the seconds per image in full batches of `size`; infinity if a batch runs out of memory."""
    whole, started = len(pictures) // size * size, time.perf_counter()
    try:
        for start in range(0, whole, size):
            way(pictures[start : start + size])
    except (DeviceMemoryError, torch.OutOfMemoryError):
        return float("inf")
    return (time.perf_counter() - started) / whole


def find_best(way: Way, pictures: Batch, sizes: Sequence[int]) -> int:
    """Find the fastest batch size; each is run twice, because a first batch may compile or search for algorithms."""
    seconds = {size: [time_way(way, part, size) for part in (pictures[: 2 * size], pictures)][1] for size in sizes}
    if min(seconds.values()) == float("inf"):
        raise RuntimeError("out of memory with all sizes of --batches")
    return min(sizes, key=seconds.__getitem__)


def compare_ways(folder: Path, device: str, sizes: Sequence[int], rounds: int, mode: str) -> Figures:
    """Measure per network images/s, fastest batch sizes, differences in probability, and TFLOP/s of our way."""
    images, ending = PICTURES[device], ".fp16" if device == "cuda" else ""
    seconds: Seconds = {way: [{} for _ in range(rounds)] for way in (EAGER, COMPILED, OURS)}
    best, differences, work = {}, {}, {}
    for model, network, outputs in load_networks(folder):
        work[model.name] = count_work(Design(model.architecture, model.size, outputs)).multiply_adds
        ways = open_ways(model, folder / "onnx" / f"{model.name}{ending}.onnx", network, outputs, device, mode)
        shape = (max(images, *sizes), *model.size, 3)
        pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        ours, wanted = (ways[way](pictures[: min(sizes)]) for way in (OURS, EAGER))
        differences[model.name] = float(np.abs(ours - wanted).max())
        best[model.name] = {way: find_best(run, pictures, sizes) for way, run in ways.items()}
        print(f"{model.name}: fastest in batches of {best[model.name]}", file=sys.stderr)
        for number in range(rounds):
            for way, run in ways.items():
                seconds[way][number][model.name] = images * time_way(run, pictures, best[model.name][way])
        torch.compiler.reset()  # a function is compiled for a limited number of shapes, over all networks
    for spent in itertools.chain(*seconds.values()):
        spent[ZOO] = sum(spent.values())
    table = summarise(images, seconds)
    reached = {name: 2 * work[name] * table[name][OURS] / 1e12 for name in work}
    return {"images/s": table, "batches": best, "differences": differences, "TFLOP/s": reached, "rounds": seconds}


def time_from_files(bundle: Path, folder: Path, images: int, rounds: int, precision: Precision, device: str) -> float:
    """Return images/s of the packed script on PNG files in the fastest round."""
    rates = []
    for _ in range(rounds):
        rates.append(run_script(bundle, folder, images, ["--precision", precision, "--strict"]).rate)
        log = json.loads((folder / "run_log.json").read_text(encoding="utf-8"))
        if (device == "cuda" and log["providers"] != [CUDA]) or set(log["precisions"].values()) != {precision}:
            raise RuntimeError(
                f"{bundle}: found a run on {log['providers']} in {log['precisions']}; wanted {precision}"
            )
    return max(rates)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), metavar="DIR", help="output folder")
    parser.add_argument("--device", choices=tuple(SIZES), default="cuda", help="cpu: a trial without valid figures")
    parser.add_argument("--batches", type=int, nargs="+", metavar="N", help="batch sizes, at most seven (32 64 128)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of all ways, alternating (3)")
    parser.add_argument("--files", type=int, metavar="N", help="PNG files for the packed script (4000)")
    parser.add_argument(
        "--compile-mode", default="default", help="mode of torch.compile; max-autotune takes long (default)"
    )
    peak = parser.add_mutually_exclusive_group()
    peak.add_argument(
        "--accelerator", choices=[one.name for one in ACCELERATORS], help="the accelerator with the published peak"
    )
    peak.add_argument("--peak-tflops", type=float, metavar="X", help="the device's peak in fp16")
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Print the figures and write them to DIR/gpu.json; return 1 if there is no usable GPU."""
    arguments = build_parser().parse_args(given)
    device, rounds, trial = arguments.device, arguments.rounds, arguments.device == "cpu"
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if not trial and (missing := explain_missing()):
        print(f"error: {missing}", file=sys.stderr)
        return 1
    if trial:
        print("trial of this script on the CPU, with a tiny network in fp32: its figures have no meaning")
    else:
        onnxruntime.preload_dlls()  # keeps the libraries that torch has loaded
        torch.backends.cudnn.benchmark = True
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
    precision: Precision = "fp32" if trial else "fp16"
    sizes, folder = arguments.batches or SIZES[device], arguments.out.resolve() / f"gpu-{device}"
    bundle = pack_random(folder, TINY if trial else NETWORKS, max(sizes), () if trial else (precision,))
    found = compare_ways(folder, device, sizes, rounds, arguments.compile_mode)
    table = found["images/s"]
    print_table(table, found["differences"])
    named = arguments.accelerator
    peak = find_rates(find_accelerator(named), precision)[1].tflops if named else arguments.peak_tflops
    for name, reached in found["TFLOP/s"].items():
        print(f"{name}: {reached:.3g} TFLOP/s" + (f", {reached / peak:.1%} of {peak:g}" if peak else ""))
    fed = time_from_files(bundle, folder, arguments.files or FILES[device], rounds, precision, device)
    alone = table[ZOO][OURS] / VIEWS
    print(f"from files, {VIEWS} views: {fed:.2f} images/s, {fed / alone:.3f} of the sessions' {alone:.2f}")
    found |= {"trial": trial, "peak TFLOP/s": peak, "from files": fed, "sessions alone": alone}
    (arguments.out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
