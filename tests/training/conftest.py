import csv
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LABELS = ("culture::blue", "culture::red", "culture::yellow", "tag::dark", "tag::large", "tag::light", "tag::wide")
IMAGES = 60


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every test below this folder."""


@pytest.fixture(scope="session")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of a coloured square, in the folder layout of Kaggle's iMet; a few have no culture label."""
    folder = tmp_path_factory.mktemp("museum")
    (folder / "train").mkdir()
    dice = random.Random(0)
    colours = ((30, 40, 220), (210, 30, 30), (220, 210, 40))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("attribute_id", "attribute_name"), *enumerate(LABELS)])
    with (folder / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "attribute_ids"))
        for _ in range(IMAGES):
            name = f"{dice.getrandbits(64):016x}"
            colour, light, large, wide = (
                dice.randrange(3),
                dice.random() < 0.5,
                dice.random() < 0.3,
                dice.random() < 0.4,
            )
            ids = [
                3 + 2 * light,
                *([4] if large else []),
                *([6] if wide else []),
                *([colour] if dice.random() < 0.9 else []),
            ]
            table.writerow((name, " ".join(map(str, sorted(ids)))))
            width, height = (60, 40) if wide else (dice.randrange(33, 50), 45)
            picture = Image.new("RGB", (width, height), (230, 230, 230) if light else (20, 20, 20))
            side = 26 if large else 10
            picture.paste(colours[colour], (4, 6, 4 + side, 6 + side))
            picture.save(folder / "train" / f"{name}.png")
    return folder


@dataclass(frozen=True)
class Zoo:
    """A manifest with two models, culture and tag, in a folder with their out-of-fold predictions."""

    folder: Path
    manifest: Path
    train: Path

    def replace_scores(self, name: str, scores: np.ndarray, ids: list[str]) -> None:
        """Replace the predictions of a model, and their hashes in the manifest."""
        np.save(self.folder / f"{name}.oof.npy", scores)
        (self.folder / f"{name}.oof.ids.txt").write_text("".join(f"{image}\n" for image in ids))
        document = json.loads(self.manifest.read_text())
        for model in document["models"]:
            if model["name"] == name:
                model["out_of_fold"] = {
                    "scores": declare(self.folder / f"{name}.oof.npy"),
                    "ids": declare(self.folder / f"{name}.oof.ids.txt"),
                }
        self.manifest.write_text(json.dumps(document))


def declare(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.fixture
def make_zoo(museum: Path, tmp_path: Path) -> Callable[[], Zoo]:
    """Make a zoo with two models that held out images 20 to 60 and 0 to 40 of train.csv, in different orders."""

    def make() -> Zoo:
        (tmp_path / "labels.csv").write_bytes((museum / "labels.csv").read_bytes())
        (tmp_path / "train.csv").write_bytes((museum / "train.csv").read_bytes())
        document = {
            "schema_version": 1,
            "labels": {**declare(tmp_path / "labels.csv"), "groups": {"culture": "culture::", "tag": "tag::"}},
            "models": [
                {
                    "name": group,
                    "architecture": "test_resnet",
                    "group": group,
                    "image_size": 32,
                    "mean": [0.5, 0.5, 0.5],
                    "std": [0.5, 0.5, 0.5],
                    "interpolation": "bicubic",
                }
                for group in ("culture", "tag")
            ],
            "ensemble": {"weights": {"culture": {"culture": 2.0}, "tag": {"tag": 1.0}}},
            "decision": {
                "groups": {
                    "culture": {"threshold": 0.9, "minimum": 0, "maximum": 3},
                    "tag": {"threshold": 0.9, "minimum": 0, "maximum": 4},
                },
                "prior": {"culture": [0], "tag": [4]},
            },
        }
        zoo = Zoo(tmp_path, tmp_path / "weights_manifest.json", tmp_path / "train.csv")
        zoo.manifest.write_text(json.dumps(document))
        noise = np.random.default_rng(0)
        rows = [line.split(",") for line in zoo.train.read_text().split("\n")[1:] if line]
        for name, columns, part in (("culture", range(3), rows[20:]), ("tag", range(3, 7), rows[:40][::-1])):
            truth = np.array([[str(column) in cell.split() for column in columns] for _, cell in part])
            scores = np.clip(0.5 * truth + noise.uniform(0, 0.6, truth.shape), 0, 1).astype(np.float16)
            zoo.replace_scores(name, scores, [image for image, _ in part])
        return zoo

    return make
