"""Estimates of `build_kernel.py plan` compared with measurements of ONNX Runtime on this machine's CPU.

python -m benchmarks.plan              fits the two rates to four networks, and estimates the others with them

Networks have random weights. They alternate, round by round, and the fastest batch of each counts. Its seconds are the
CPU time of the session's threads divided by their number, because wall-clock time includes other work of the machine.
`wall` is the ratio of the fastest wall-clock time to that: 1.00 if nothing else ran and all threads were always busy.
The rates minimise the squares of relative errors, and are not negative; copy them to the row `CPU` of
packing/accelerators.py.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import timm
from numpy.typing import NDArray
from scipy.optimize import nnls

from inference.models.sessions import ModelSession
from packing.accelerators import Rates, find_accelerator
from packing.export.graphs.form import Form
from packing.export.graphs.network import build_graph
from packing.plan.estimate import estimate_seconds
from packing.plan.work import Work, count_work
from zoo.networks import Design

LABELS = 1103  # iMet 2019's
FITTED = ("resnet34@224", "legacy_seresnext50_32x4d@224", "efficientnet_lite0@224", "pnasnet5large@331")
# The first seven were used to choose the model of packing/plan/estimate.py; the others were not.
PREDICTED = (
    "legacy_seresnext101_32x4d@224",
    "legacy_senet154@224",
    "resnet50@224",
    "mobilenetv2_100@224",
    "densenet121@224",
    "regnety_016@224",
    "convnext_tiny@224",
    "legacy_seresnet50@320",
    "resnext50_32x4d@320",
    "inception_v4@299",
    "efficientnet_lite2@260",
    "resnet18@224",
)


def export_random(network: str, folder: Path) -> Path:
    """Export ARCHITECTURE@SIZE with random weights unless the file exists; return its path."""
    architecture, _, size = network.partition("@")
    path = folder / f"{network}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        square = (int(size), int(size))
        form = Form(square, square, (0.5,) * 3, (0.5,) * 3, LABELS, "sigmoid", ("identity", "hflip"))
        module = timm.create_model(architecture, num_classes=LABELS).eval()
        onnx.save(build_graph(module, form), path)
    return path


def measure_fastest(paths: Mapping[str, Path], batch: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the seconds per image of each network's fastest batch, as CPU time and as wall-clock time."""
    cores = len(os.sched_getaffinity(0))
    sessions = {network: ModelSession(network, path, LABELS) for network, path in paths.items()}
    fastest = dict.fromkeys(paths, (float("inf"), float("inf")))
    random = np.random.default_rng(0)
    for _ in range(rounds):
        for network, session in sessions.items():
            size = int(network.partition("@")[2])
            images = random.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
            wall, busy = time.perf_counter(), time.process_time()
            session.predict(images)
            spent = ((time.process_time() - busy) / cores / batch, (time.perf_counter() - wall) / batch)
            fastest[network] = (min(fastest[network][0], spent[0]), min(fastest[network][1], spent[1]))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return fastest


def fit_rates(works: Sequence[Work], seconds: Sequence[float], batch: int) -> Rates:
    """Fit TFLOP/s and GB/s to the seconds per image."""
    one_tflop, one_gigabyte = Rates(1, float("inf"), 1, ""), Rates(float("inf"), 1, 1, "")
    parts = [[estimate_seconds(work, unit, "fp32", batch) for unit in (one_tflop, one_gigabyte)] for work in works]
    relative: NDArray[np.float64] = np.array(parts) / np.array(seconds)[:, None]
    (tflops, bandwidth), _ = nnls(relative, np.ones(len(works)))
    return Rates(float(1 / tflops), float(1 / bandwidth), 1.0, "fitted here")


def design_network(name: str) -> Design:
    """Return the design of ARCHITECTURE@SIZE."""
    architecture, _, size = name.partition("@")
    return Design(architecture, (int(size), int(size)), LABELS)


def main(given: Sequence[str] | None = None) -> int:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/plan"), metavar="DIR", help="output folder")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="batches per network (20)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images per batch (8)")
    arguments = parser.parse_args(given)
    networks = (*FITTED, *PREDICTED)
    works = {name: count_work(design_network(name)) for name in networks}
    paths = {name: export_random(name, arguments.out) for name in networks}
    spent = measure_fastest(paths, arguments.batch, arguments.rounds)
    seconds = {name: busy for name, (busy, _) in spent.items()}
    fitted = fit_rates([works[name] for name in FITTED], [seconds[name] for name in FITTED], arguments.batch)
    table = find_accelerator("CPU").rates["fp32"]
    print(f"rates: {500 * fitted.tflops:.1f} G multiply-adds/s, {fitted.bandwidth:.1f} GB/s")
    header = f"{'G madds':>7} {'MB moved':>8} {'measured':>8} {'estimated':>9} {'error':>6} {'table':>9} {'wall':>5}"
    print(f"{'':32} {header}  images/s")
    rows = []
    for name in networks:
        work, measured = works[name], 1 / seconds[name]
        estimated, tabled = (1 / estimate_seconds(work, rates, "fp32", arguments.batch) for rates in (fitted, table))
        error, other = estimated / measured - 1, tabled / measured - 1
        wall = spent[name][1] / spent[name][0]
        row = {"network": name, "fitted": name in FITTED, "measured": measured, "error": error}
        rows.append(row | {"table": other, "wall": wall})
        mark = "fitted" if name in FITTED else ""
        print(
            f"{name:32} {work.multiply_adds / 1e9:7.2f} {work.moved / 1e6:8.0f} {measured:8.2f} {estimated:9.2f} "
            f"{error:+6.0%} {other:+9.0%} {wall:5.2f} {mark}"
        )
    result = {"tflops": fitted.tflops, "bandwidth": fitted.bandwidth, "batch": arguments.batch, "networks": rows}
    (arguments.out / "plan.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    unused = [abs(row["error"]) for row in rows if not row["fitted"]]
    within = sum(error <= 0.2 for error in unused)
    print(f"{within} of {len(unused)} networks not used to fit the rates: within 20 %; largest error {max(unused):.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
