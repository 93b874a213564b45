"""Small competitions other than iMet, as `build_kernel.py init` leaves them: images, and a zoo without models."""

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from inference.manifest.file import write_manifest
from inference.manifest.task import Form, Images, Metric, Task
from zoo.edit import create_manifest

COLOURS = {"Sugar beet": (30, 40, 220), "Maïs, doux": (210, 30, 30), "Black-grass": (220, 210, 40)}
CLASSES = Task(
    competition="plants",
    type="multiclass",
    images=Images("test pictures/{id}"),
    submission=Form(content="label_name", column="species", top_k=1),
    metric=Metric("accuracy"),
)
NUMBERS = Task(
    competition="sizes",
    type="regression",
    images=Images("test pictures/{id}"),
    submission=Form("wide", "number", "Side"),
    metric=Metric("rmse"),
    value_range=(0.0, 40.0),
)


@dataclass(frozen=True)
class Competition:
    """A competition's folder, and the zoo of its task."""

    data: Path
    zoo: Path

    @property
    def manifest(self) -> Path:
        return self.zoo / "weights_manifest.json"


def make_competition(folder: Path, task: Task, images: int = 36, soft: bool = False) -> Competition:
    """Draw squares in three colours, whose names have spaces; the label is the colour, the number the side in px."""
    made, dice = Competition(folder / "data", folder / "zoo"), random.Random(0)
    (made.data / "train pictures").mkdir(parents=True)
    (made.data / "test pictures").mkdir()
    made.zoo.mkdir()
    truth = "value" if task.type == "regression" else "targets" if soft else "labels"
    rows = []
    for place in range(images):
        kind, side = dice.randrange(3), dice.randrange(8, 32)
        name = f"plant {place}.png"
        picture = Image.new("RGB", (60 if place % 3 else 90, 40), (230, 230, 230))
        picture.paste(list(COLOURS.values())[kind], (4, 4, 4 + side, 4 + side))
        picture.save(made.data / "train pictures" / name)
        shares = ["0.7" if column == kind else "0.15" for column in range(3)]
        cell = {"value": str(side), "targets": " ".join(shares), "labels": str(kind)}[truth]
        rows.append((name, f"train pictures/{name}", cell))
    picture.save(made.data / "test pictures" / "plant 0.png")
    names = ["Side"] if task.type == "regression" else list(COLOURS)
    write_rows(made.zoo / "labels.csv", [("label_id", "label_name"), *enumerate(names)])
    write_rows(made.zoo / "train.csv", [("id", "image", truth), *rows])
    write_manifest(create_manifest(made.manifest, made.zoo / "labels.csv", made.zoo / "train.csv", task), made.manifest)
    return made


def write_rows(path: Path, rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
