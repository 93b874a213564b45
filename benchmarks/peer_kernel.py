"""Comparison of Vitrine with the usual public kernel: same images, weights, views and cores, alternating in one run.

python -m benchmarks.peer_kernel                      resnet34, two SE-ResNeXts and PNASNet-5, 32 images, 3 rounds
python -m benchmarks.peer_kernel --images 16 --rounds 1 --only resnet34

The usual kernel, following public solutions: torch in eager mode; one DataLoader per model and view, each of which
decodes every image again; ToTensor and Normalize; batches of 16. It is also run at its best: each model with the batch
size and memory layout that were fastest in a trial. Networks have random weights; their probabilities are compared.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.kernel import draw_pictures, pack_random, run_script
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.manifest.labels import read_labels
from inference.manifest.model import Model
from zoo.networks import load_network, read_design

NETWORKS = {"resnet34": 320, "legacy_seresnext50_32x4d": 320, "legacy_seresnext101_32x4d": 320, "pnasnet5large": 331}
ZOO = "the zoo"
PUBLISHED = 16
SIZES = (4, 8, 16)
CHUNK = 16  # images per chunk of Vitrine; in smaller chunks, the cores wait for each other more often
TRIAL = 16  # images per trial of the peer's settings


@dataclass(frozen=True)
class Setting:
    """Settings of the peer for a model."""

    batch_size: int
    channels_last: bool


class Images(Dataset[torch.Tensor]):
    """The test images for one model and view, prepared by torchvision's transforms."""

    def __init__(self, paths: Sequence[Path], model: Model, flipped: bool) -> None:
        self.paths, self.flipped = paths, flipped
        self.transform = transforms.Compose(
            [
                transforms.Resize(
                    (model.image_size, model.image_size), transforms.InterpolationMode(model.interpolation)
                ),
                transforms.ToTensor(),
                transforms.Normalize(model.mean, model.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        with Image.open(self.paths[place]) as image:
            pixels = image.convert("RGB")
        pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flipped else pixels
        view: torch.Tensor = self.transform(pixels)
        return view


def run_peer(
    network: torch.nn.Module, model: Model, paths: Sequence[Path], setting: Setting, views: int = 2
) -> tuple[float, NDArray[np.float32]]:
    """Run a model like the usual kernel; return the seconds and the probabilities, the mean of its views."""
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    total: list[NDArray[np.float32]] = []
    started = time.perf_counter()
    with torch.no_grad():
        for flipped in (False, True)[:views]:
            loader = DataLoader(Images(paths, model, flipped), setting.batch_size, num_workers=os.cpu_count() or 1)
            parts = [torch.sigmoid(network(batch.to(memory_format=layout))).numpy() for batch in loader]
            total.append(np.concatenate(parts))
    return time.perf_counter() - started, np.mean(total, axis=0)


def find_best(network: torch.nn.Module, model: Model, paths: Sequence[Path]) -> Setting:
    """Find the peer's fastest batch size and layout for a model, on a few images and one view."""
    settings = [Setting(size, last) for size in SIZES if size <= len(paths) for last in (False, True)]
    run_peer(network, model, paths[:PUBLISHED], settings[0], views=1)  # the first run is slow
    return min(settings, key=lambda setting: run_peer(network, model, paths, setting, views=1)[0])


def run_ours(bundle: Path, folder: Path, images: int) -> tuple[dict[str, float], dict[str, NDArray[np.float16]]]:
    """Run the bundle; return the seconds per model (as ZOO of all with decoding) and the probabilities per model."""
    predictions = folder / "predictions"
    run_script(bundle, folder, images, ["--predictions", str(predictions)])
    log = json.loads((folder / "run_log.json").read_text(encoding="utf-8"))
    seconds = {name: 2 * images / rate for name, rate in log["passes_per_second"].items()}
    answers = {name: np.load(predictions / f"{name}.npy", allow_pickle=False) for name in seconds}
    return {ZOO: log["seconds"]["predict"], **seconds}, answers


def load_networks(folder: Path) -> Iterator[tuple[Model, torch.nn.Module, int]]:
    """Yield each model of a folder of `pack_random`, its network in torch, and its number of labels."""
    manifest = read_manifest(folder / MANIFEST_NAME)
    labels = read_labels(folder / manifest.labels.file, manifest.labels.groups)
    for model in manifest.models:
        assert model.checkpoint is not None
        path = folder / model.checkpoint.file
        yield model, load_network(path, read_design(model, folder, labels)).module, len(labels.ids)


def summarise(images: int, seconds: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return images/s per model and way in the fastest round, and the ratio of ours to the fastest other way."""
    table = {}
    for name in seconds["ours"][0]:
        rates = {way: images / min(spent[name] for spent in rounds) for way, rounds in seconds.items()}
        table[name] = {**rates, "ratio": rates["ours"] / max(rates[way] for way in rates if way != "ours")}
    return table


def print_table(table: Mapping[str, Mapping[str, float]], differences: Mapping[str, float]) -> None:
    """Print the table of `summarise` with the largest difference in probability per network."""
    ways = [way for way in table[ZOO] if way != "ratio"]
    print(f"| network | {' | '.join(ways)} | ours / best | largest difference |")
    print("|---" * (len(ways) + 3) + "|")
    for name, rates in table.items():
        cells = " | ".join(f"{rates[way]:.2f}" for way in (*ways, "ratio"))
        print(f"| {name} | {cells} | {differences.get(name, max(differences.values())):.1e} |")


def main() -> int:
    """Print the table, and write it to build/benchmarks/peer_kernel.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32, help="number of PNG files of 400x300 px (32)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of all ways, alternating; the fastest of each counts (3)"
    )
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="networks")
    given = parser.parse_args()
    folder = Path("build/benchmarks/peer").resolve()
    bundle = pack_random(folder, {name: NETWORKS[name] for name in given.only}, CHUNK)
    paths = sorted(draw_pictures(folder, given.images).iterdir())
    networks, best = [], {}
    for model, network, _ in load_networks(folder):
        networks.append((model, network))
        best[model.name] = find_best(network, model, paths[:TRIAL])
        print(f"{model.name}: the peer is fastest with {best[model.name]}", file=sys.stderr)
    published = dict.fromkeys(best, Setting(PUBLISHED, channels_last=False))
    seconds: dict[str, list[dict[str, float]]] = {"as published": [], "at its best": [], "ours": []}
    differences = dict.fromkeys(best, 0.0)
    for _ in range(given.rounds):
        ours, answers = run_ours(bundle, folder, given.images)
        seconds["ours"].append(ours)
        for way, settings in (("as published", published), ("at its best", best)):
            spent = {}
            for model, network in networks:
                spent[model.name], answer = run_peer(network, model, paths, settings[model.name])
                difference = float(np.abs(answer - answers[model.name]).max())
                differences[model.name] = max(differences[model.name], difference)
            seconds[way].append({ZOO: sum(spent.values()), **spent})
    table = summarise(given.images, seconds)
    found = {"images": given.images, "images/s": table, "differences": differences, "rounds": seconds}
    found["best"] = {name: asdict(setting) for name, setting in best.items()}
    Path("build/benchmarks/peer_kernel.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print_table(table, differences)
    return 0


if __name__ == "__main__":
    sys.exit(main())
