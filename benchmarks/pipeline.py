"""Figures of the pipeline: the cost of feeding the sessions, its growth with the images, the start-up time.

python -m benchmarks.pipeline                                    all three, half an hour
python -m benchmarks.pipeline --only growth --images 4000        one of them, smaller

efficiency: on the demo's models, alternating, images/s of decoding alone (D), of the sessions alone on decoded squares
(S), and of the packed script (P). If both share cores that each keeps busy, 1 / (1/D + 1/S) is possible; P can be
higher only if either leaves cores idle. If a GPU runs the sessions, the smaller of D and S is possible. Then the share
of the run time inside the sessions for a resnet34 at 320 px.

growth: the packed demo models on 1/40 of the images, on all, and on 1/40 again: rates and peak memory.

start: opening a session of each of four networks, and the time from the start of the packed script with all four to its
first prediction. Their files are then in the system's cache, unlike in a kernel.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.kernel import build_command, draw_pictures, pack_museum, pack_random, run_compute_bound, run_script
from benchmarks.peer_kernel import NETWORKS
from inference.basics.errors import ImageError
from inference.basics.run_log import RunLog
from inference.images.geometry import read_geometry
from inference.images.read import Picture, read_picture
from inference.images.read_ahead import decode_ahead
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.manifest.labels import read_labels
from inference.manifest.model import Model
from inference.manifest.records import Manifest
from inference.manifest.values import Precision
from inference.models.devices import read_devices
from inference.models.gpus import Gpus
from inference.models.runners import Runner
from inference.models.sessions import ModelSession
from inference.run.chunk import join_squares

PARTS = ("efficiency", "growth", "start")
GROWTH = 40
SPREAD = 3  # short runs before and after each long one: absolute times drift
IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); import inference.run.predict"
# In a separate process, because memory that was used before is allocated faster.
OPEN = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from inference.models.wheels import load_libraries
load_libraries()
from inference.models.devices import read_devices
from inference.models.sessions import ModelSession
gpus, started = len(read_devices()), time.perf_counter()
ModelSession("model", Path(sys.argv[2]), int(sys.argv[3]), gpus)
print(time.perf_counter() - started)
"""

Figures = dict[str, Any]


def read_outputs(bundle: Path, manifest: Manifest) -> dict[str, int]:
    """Return the number of labels per model."""
    labels = read_labels(bundle / manifest.labels.file, manifest.labels.groups)
    return {model.name: len(labels.columns(model.group)) for model in manifest.models}


def decode(paths: Sequence[Path], manifest: Manifest) -> list[list[Picture]]:
    """Read all images in chunks like the kernel."""
    runtime = manifest.runtime
    geometries = {read_geometry(model) for model in manifest.models}
    read = partial(read_picture, geometries=geometries, max_pixels=runtime.max_pixels)
    with closing(decode_ahead(paths, read, runtime.batch_size, runtime.image_seconds)) as chunks:
        return [[one for one in chunk if not isinstance(one, ImageError)] for _, chunk in chunks]


def time_sessions(bundle: Path, manifest: Manifest, chunks: Sequence[Sequence[Picture]], gpus: int) -> float:
    """Return the seconds of all models and views on all chunks, run like in the kernel, without opening sessions."""

    def open_session(model: Model, gpus: int, precision: Precision) -> ModelSession:
        return ModelSession(model.name, bundle / model.onnx[precision].file, outputs[model.name], gpus)

    outputs = read_outputs(bundle, manifest)
    geometries = {model.name: read_geometry(model) for model in manifest.models}
    batches = [{one: join_squares(chunk, one) for one in set(geometries.values())} for chunk in chunks]
    size, log = manifest.runtime.batch_size, RunLog(strict=True)
    shared = Gpus([device.name for device in read_devices()][:gpus], log)
    runners = {model.name: Runner(partial(open_session, model), shared, size, log) for model in manifest.models}
    started = time.perf_counter()
    for batch in batches:
        for model in manifest.models:
            runners[model.name].predict(batch[geometries[model.name]], model.views)
    return time.perf_counter() - started


def measure_efficiency(out: Path, images: int, rounds: int) -> Figures:
    """Measure D, S, P and P relative to the possible rate per round, and the share inside a compute-bound session."""
    bundle = pack_museum(out / "museum")
    manifest, gpus = read_manifest(bundle / MANIFEST_NAME), len(read_devices())
    paths = sorted(draw_pictures(out, images).iterdir())
    decode(paths, manifest)  # the first pass reads the files from the disk
    table = []
    print("| D, decoding | S, sessions | P, packed | possible | P / possible | P / D |\n|---|---|---|---|---|---|")
    for _ in range(rounds):
        started = time.perf_counter()
        chunks = decode(paths, manifest)
        row = {"D": images / (time.perf_counter() - started)}
        row["S"] = images / time_sessions(bundle, manifest, chunks, gpus)
        row["P"] = run_script(bundle, out, images).rate
        row["possible"] = min(row["D"], row["S"]) if gpus else 1 / (1 / row["D"] + 1 / row["S"])
        row |= {"P / possible": row["P"] / row["possible"], "P / D": row["P"] / row["D"]}
        table.append(row)
        print("| " + " | ".join(f"{value:.3g}" for value in row.values()) + " |", flush=True)
    middle = {name: statistics.median(row[name] for row in table) for name in table[0]}
    print(f"medians: P / possible {middle['P / possible']:.3f} (wanted 0.90), P / D {middle['P / D']:.3f}")
    bound = run_compute_bound(out, min(images, 200))
    print(f"resnet34 at 320 px: {bound.rate:.2f} images/s, {bound.share:.3f} of it inside the sessions (wanted 0.95)")
    return {"images": images, "gpus": gpus, "rounds": table, "medians": middle, "compute-bound share": bound.share}


def measure_growth(out: Path, images: int, rounds: int) -> Figures:
    """Measure rates and peak memory of short and long runs, alternating, and the ratios of long to short runs."""
    bundle, few = pack_museum(out / "museum"), images // GROWTH
    runs: dict[int, list[tuple[float, float]]] = {few: [], images: []}
    print("| images | images/s | peak, MB |\n|---|---|---|")
    for count in [*([few] * SPREAD + [images]) * rounds, *[few] * SPREAD]:
        run = run_script(bundle, out, count)
        runs[count].append((run.rate, run.peak))
        print(f"| {count:,} | {run.rate:.1f} | {run.peak:.0f} |", flush=True)
    (slow, small), (rate, peak) = (map(statistics.median, zip(*runs[count], strict=True)) for count in (few, images))
    ratios = {"rate": rate / slow, "peak": peak / small}
    print(f"{images:,} by {few:,} images: rate {ratios['rate']:.3f} (wanted 0.95 to 1.05), peak {ratios['peak']:.3f}")
    return {"runs": runs, "ratios": ratios}


def measure_start(out: Path, rounds: int) -> Figures:
    """Measure the seconds to open each session, and of each stage of the script up to its first prediction."""
    folder = out / "start"
    bundle = pack_random(folder, NETWORKS)
    manifest = read_manifest(bundle / MANIFEST_NAME)
    outputs, images = read_outputs(bundle, manifest), manifest.runtime.batch_size
    spent: dict[str, list[float]] = {}
    for _ in range(rounds):
        for model in manifest.models:
            command = [sys.executable, "-I", "-c", OPEN, str(bundle / "inference.pyz")]
            command += [str(bundle / model.onnx["fp32"].file), str(outputs[model.name])]
            opened = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            spent.setdefault(f"session of {model.name}", []).append(float(opened.stdout))
        for stage, seconds in time_first_prediction(bundle, folder, images).items():
            spent.setdefault(stage, []).append(seconds)
    middle = {name: statistics.median(seconds) for name, seconds in spent.items()}
    print(f"| median of {rounds} | s |\n|---|---|")
    for name, seconds in middle.items():
        print(f"| {name} | {seconds:.2f} |")
    return {"batch": images, "seconds": spent, "medians": middle}


def time_first_prediction(bundle: Path, folder: Path, images: int) -> dict[str, float]:
    """Return the seconds from the start of the script to its first prediction, and of each stage before it."""
    command = build_command(bundle, folder, images)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", IMPORT, str(bundle / "inference.pyz")], check=True)
    stages = {"Python and its imports": time.perf_counter() - started}
    finished = subprocess.run(
        [*command, "--started-at", str(time.monotonic())], capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise RuntimeError(f"{bundle}: the script failed: {finished.stderr.strip()}")
    log = json.loads((folder / "run_log.json").read_text(encoding="utf-8"))
    first: float = log["first_prediction_seconds"]
    names = {"check": "hashes and inputs", "prior": "submission of the prior labels", "load": "all sessions"}
    stages |= {name: log["seconds"][stage] for stage, name in names.items()}
    stages["decoding and the first batch"] = first - sum(stages.values())
    return {**stages, f"first prediction, {images} images": first}


def main(given: Sequence[str] | None = None) -> int:
    """Print the figures and write them to DIR/pipeline.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), metavar="DIR", help="output folder")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (all)")
    parser.add_argument("--images", type=int, default=40_000, metavar="N", help="images of a long run (40000)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (5 for efficiency and start, 1 for growth)")
    arguments = parser.parse_args(given)
    out, images, rounds = arguments.out.resolve(), arguments.images, arguments.rounds
    if images < GROWTH:
        parser.error(f"--images: found {images}; wanted {GROWTH} or more")
    found: dict[str, Figures] = {}
    if "efficiency" in arguments.only:
        found["efficiency"] = measure_efficiency(out, images // GROWTH, rounds or 5)
    if "growth" in arguments.only:
        found["growth"] = measure_growth(out, images, rounds or 1)
    if "start" in arguments.only:
        found["start"] = measure_start(out, rounds or 5)
    (out / "pipeline.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
