"""Figures of the kernel: time of --help, peak memory, and the share of the run time inside the models.

python -m benchmarks.kernel            all of them, on the demo's bundle and a resnet34 with random weights
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image

from demo.museum import write_museum
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.values import Precision
from packing.add.add import add_model
from packing.add.declare import Addition
from packing.export.example_images import SMALLEST
from packing.export.export_zoo import export_zoo
from packing.pack.metadata import Names
from packing.pack.write_bundle import pack

ROOT = Path(__file__).parent.parent
NAMES = Names("your-kaggle-name", "benchmark-bundle", "Benchmark bundle", "imet-2019-fgvc6")
HELP_RUNS = 9
PICTURES = 200  # different files; further files are links to them, which the kernel decodes again
SIZE = (400, 300)
# A forked process starts with the peak memory of its parent. Starting from this process would count torch's memory.
LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True)
class Run:
    """Figures of one run of the script."""

    rate: float
    """Images/s."""
    share: float
    """Of the predicting time, inside the sessions."""
    peak: float
    """Memory, MB."""


def write_sample(path: Path, ids: Sequence[str]) -> Path:
    """Write a sample submission in the form of iMet 2019; return its path."""
    rows = "".join(f"{image_id},0\n" for image_id in ids)
    path.write_text(f"id,attribute_ids\n{rows}", encoding="utf-8")
    return path


def draw_pictures(folder: Path, count: int) -> Path:
    """Write `count` PNG files of 400x300 px and their sample; return the folder of the files."""
    images = folder / f"pictures-{count}"
    images.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(count):
        path = images / f"{index:012x}.png"
        if path.exists():
            continue
        if index >= PICTURES:
            path.hardlink_to(images / f"{index % PICTURES:012x}.png")
            continue
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        grain = random.normal(0, 6, (SIZE[1], SIZE[0], 1))
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(path)
    write_sample(folder / f"sample-{count}.csv", [f"{index:012x}" for index in range(count)])
    return images


def pack_museum(folder: Path) -> Path:
    """Pack the models of the demo; return the dataset folder."""
    write_museum(folder / "museum", 0, SMALLEST)
    export_zoo(ROOT / "weights_manifest.json", folder / "onnx", folder / "museum" / "test")
    return pack(ROOT / "weights_manifest.json", folder / "onnx", folder / "bundle", NAMES).dataset


def pack_random(
    folder: Path, networks: Mapping[str, int], batch_size: int = 32, precisions: Collection[Precision] = ()
) -> Path:
    """Pack networks with random weights for the demo's labels; return the dataset folder.

    `networks`: architecture -> image size; `precisions`: to export in addition to fp32.
    """
    torch.manual_seed(0)  # the same weights every time, so that an earlier export is reused
    write_museum(folder, 0, SMALLEST)
    manifest, labels, train = folder / MANIFEST_NAME, folder / "labels.csv", folder / "train.csv"
    manifest.unlink(missing_ok=True)
    outputs = len(labels.read_text(encoding="utf-8").splitlines()) - 1
    for architecture, image_size in networks.items():
        network = timm.create_model(architecture, num_classes=outputs)
        checkpoint = folder / f"{architecture}.safetensors"
        safetensors.torch.save_file(network.state_dict(), checkpoint)
        add_model(manifest, Addition(checkpoint, architecture, image_size, "all", architecture), labels, train)
    declared = read_manifest(manifest)
    # With random weights, the loss of F2 has no meaning.
    runtime = replace(declared.runtime, batch_size=batch_size, metric_loss=1.0)
    write_manifest(replace(declared, runtime=runtime), manifest)
    export_zoo(manifest, folder / "onnx", folder / "test", precisions)
    return pack(manifest, folder / "onnx", folder / "bundle", NAMES).dataset


def build_command(bundle: Path, folder: Path, count: int) -> list[str]:
    """Draw `count` images and return the command that predicts them; its run_log.json goes to `folder`."""
    images = draw_pictures(folder, count)
    command = [sys.executable, "-I", str(bundle / "inference.pyz"), "--bundle", str(bundle), "--images", str(images)]
    return [*command, "--sample", str(folder / f"sample-{count}.csv"), "--out", str(folder / "submission.csv")]


def run_script(bundle: Path, folder: Path, count: int, options: Sequence[str] = ()) -> Run:
    """Predict `count` images with the bundle in a measured process; `options`: further options of the script."""
    command = [*build_command(bundle, folder, count), *options]
    launched = [sys.executable, "-I", "-c", LAUNCHER, *command]
    finished = subprocess.run(launched, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{bundle}: the script failed; see its message with: {' '.join(command)}")
    log = json.loads((folder / "run_log.json").read_text(encoding="utf-8"))
    return Run(
        log["images_per_second"], log["seconds"]["sessions"] / log["seconds"]["predict"], int(finished.stdout) / 1024
    )


def run_compute_bound(folder: Path, count: int = 200) -> Run:
    """Run a model that takes much longer than decoding: a resnet34 at 320 px."""
    return run_script(pack_random(folder / "resnet34", {"resnet34": 320}), folder, count)


def time_help(bundle: Path) -> float:
    """Return the median run time of --help, seconds."""
    spent = []
    for _ in range(HELP_RUNS):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-I", bundle / "inference.pyz", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def main(given: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), metavar="DIR", help="output folder")
    out = parser.parse_args(given).out.resolve()
    museum = pack_museum(out / "museum")
    print(f"inference.pyz --help: {time_help(museum):.3f} s, median of {HELP_RUNS}")
    few, many = (run_script(museum, out, count) for count in (500, 5000))
    print(f"demo models, peak memory: {few.peak:.0f} MB for 500 images, {many.peak:.0f} MB for 5,000 of 400x300 px")
    print(f"demo models: {many.rate:.1f} images/s, {many.share:.0%} of the predicting time inside session.run")
    resnet = run_compute_bound(out)
    print(f"resnet34 at 320 px: {resnet.rate:.1f} images/s, {resnet.share:.0%} inside session.run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
