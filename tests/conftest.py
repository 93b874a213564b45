"""Fixtures made once for all tests: a tiny zoo, its bundle and a folder of images."""

import csv
import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from inference.manifest.bundle import read_declared
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.model import Resize
from inference.manifest.records import Manifest
from inference.task.sample import read_sample
from inference.task.submission import check_submission
from packing.add.add import Addition, add_model
from packing.export.export_zoo import export_zoo
from packing.pack.metadata import Names
from packing.pack.write_bundle import pack

ROOT = Path(__file__).parent.parent
LABELS = ("culture::greek", "culture::roman", "tag::birds", "tag::boats", "tag::trees")
NAMES = Names("museum-owner", "tiny-bundle", "Tiny bundle", "tiny-competition")
# name: (architecture, group, image size, resize)
ZOO = {
    "everything": ("test_resnet", "all", 64, Resize()),
    "culture": ("test_byobnet", "culture", 48, Resize("crop", 0.875)),
    "tag": ("test_efficientnet", "tag", 64, Resize()),
}


@dataclass(frozen=True)
class Workshop:
    """Paths of a tiny zoo."""

    home: Path
    """Folder of the manifest and the checkpoints."""
    onnx: Path
    """Folder of the export."""
    bundle: Path
    competition: Path
    """Its folder, as Kaggle mounts it."""

    @property
    def images(self) -> Path:
        return self.competition / "test"

    @property
    def sample(self) -> Path:
        return self.competition / "sample_submission.csv"

    @property
    def manifest(self) -> Path:
        return self.home / MANIFEST_NAME

    @property
    def dataset(self) -> Path:
        return self.bundle / "dataset"


def write_rows(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_prior_cell(manifest: Path) -> str:
    """Return the prior labels of all groups of a manifest, as they stand in a submission."""
    prior = read_manifest(manifest).decision.prior
    return " ".join(map(str, sorted(label for ids in prior.values() for label in ids)))


def write_picture(path: Path, size: tuple[int, int], seed: int) -> Path:
    """Write an image of smooth random colours, so that resizing matters."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def write_network(path: Path, architecture: str, outputs: int, seed: int) -> Path:
    """Write a checkpoint with random weights whose predictions differ between images."""
    torch.manual_seed(seed)
    network = timm.create_model(architecture, num_classes=outputs)
    with torch.no_grad():
        network.get_classifier().weight.mul_(40)
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    safetensors.torch.save_file(state, path)
    return path


def check_valid(bundle: Path, sample: Path, out: Path) -> None:
    """Check that a submission fits its sample and the task of the bundle."""
    manifest, labels = read_declared(bundle)
    check_submission(out, read_sample(sample, manifest.task, labels), labels, manifest.task)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One torch thread: more do not speed up such small networks, and make them 50 times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A zoo shared by all tests, which must not change it; `own_workshop` may be changed."""
    base = tmp_path_factory.getbasetemp()
    # The workers of one run share a folder above their own; the first one makes the zoo, the others wait for it.
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "workshop"
    made = Workshop(root / "home", root / "onnx", root / "bundle", root / "competition")
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.with_suffix(".made").exists():
            shutil.rmtree(root, ignore_errors=True)
            make_workshop(root)
            root.with_suffix(".made").touch()
    return made


def make_workshop(root: Path) -> None:
    """Make the zoo, its bundle and the images in `root`."""
    home, images = root / "home", root / "competition" / "test"
    home.mkdir(parents=True)
    images.mkdir(parents=True)
    labels = write_rows(home / "labels.csv", ("attribute_id", "attribute_name"), list(enumerate(LABELS)))
    train = write_rows(
        home / "train.csv", ("id", "attribute_ids"), [("a", "0 2"), ("b", "0 2 3"), ("c", "2"), ("d", "4")]
    )
    for seed, (name, (architecture, group, size, resize)) in enumerate(ZOO.items()):
        outputs = sum(group in ("all", label.partition("::")[0]) for label in LABELS)
        checkpoint = write_network(home / f"{name}.safetensors", architecture, outputs, seed)
        addition = Addition(checkpoint, architecture, size, group, name, resize.rule, resize.percentage)
        add_model(home / MANIFEST_NAME, addition, labels, train)
    ids = [f"{index:012x}" for index in range(20)]
    for index, name in enumerate(ids):
        write_picture(images / f"{name}.png", (90 + 7 * index, 120 - 3 * index), index)
    write_rows(
        images.with_name("sample_submission.csv"), ("id", "attribute_ids"), [(name, "0 1") for name in reversed(ids)]
    )
    export_zoo(home / MANIFEST_NAME, root / "onnx", images)
    pack(home / MANIFEST_NAME, root / "onnx", root / "bundle", NAMES)


@pytest.fixture
def own_workshop(workshop: Workshop, tmp_path: Path) -> Workshop:
    """A copy of the workshop that a test may break."""
    root = workshop.home.parent
    copy = Path(shutil.copytree(root, tmp_path / "own"))
    return Workshop(copy / "home", copy / "onnx", copy / "bundle", copy / "competition")


@dataclass(frozen=True)
class Precise:
    """Paths of the zoo in all precisions, with any loss of F2, and of images with their train.csv."""

    home: Path
    onnx: Path
    images: Path
    train: Path

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.onnx / MANIFEST_NAME)


@pytest.fixture(scope="session")
def precise(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Precise:
    root = tmp_path_factory.mktemp("precise")
    images = root / "images"
    images.mkdir()
    names = [f"{index:012x}" for index in range(36)]
    for index, name in enumerate(names):
        write_picture(images / f"{name}.png", (96, 96), 100 + index)
    rows: list[tuple[object, ...]] = [(name, f"{index % 2} {2 + index % 3}") for index, name in enumerate(names)]
    train = write_rows(root / "train.csv", ("id", "attribute_ids"), rows)
    home = Path(shutil.copytree(workshop.home, root / "home"))
    manifest = read_manifest(home / MANIFEST_NAME)
    lenient = dataclasses.replace(manifest, runtime=dataclasses.replace(manifest.runtime, metric_loss=1.0))
    write_manifest(lenient, home / MANIFEST_NAME)
    made = Precise(home, Path(shutil.copytree(workshop.onnx, root / "onnx")), images, train)
    export_zoo(home / MANIFEST_NAME, made.onnx, images, ("int8", "fp16"), train)
    return made
