from pathlib import Path

import numpy as np
import pytest

from inference.manifest.labels import Labels
from inference.manifest.task import Task
from tests.training.small_tasks import CLASSES, NUMBERS, Competition, make_competition
from training.__main__ import main
from training.pages.explore_labels import count_labels, describe_truth, describe_values, find_kind, read_values
from zoo.tables.train_table import Table

LABELS = Labels((0, 1), ("big dog", "cat"), {"labels": (0, 1)})
SOFT = Table(("a", "b", "c"), np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]], np.float32))


def test_soft_labels_are_counted_by_the_highest_and_their_mean_share() -> None:
    assert find_kind(SOFT, CLASSES) == "shares"
    counts = count_labels(LABELS, SOFT, CLASSES)
    assert [(one.name, one.images, one.share) for one in counts] == [
        ("big dog", 2, pytest.approx(0.7)),
        ("cat", 1, pytest.approx(0.3)),
    ]
    assert describe_truth(SOFT.targets[1], CLASSES, counts) == ([], "cat 0.60, big dog 0.40")


def test_numbers_are_described_in_the_competitions_units() -> None:
    table = Table(("a", "b"), np.array([[0.25], [0.75]], np.float32))
    assert find_kind(table, NUMBERS) == "numbers"
    found = describe_values(read_values(table, NUMBERS))
    assert found == {"mean": 20, "standard deviation": 10, "median": 20, "minimum": 10, "maximum": 30}
    assert describe_truth(table.targets[0], NUMBERS, []) == ([], "10")


def write_page(made: Competition, folder: Path) -> str:
    out = folder / "explore.html"
    assert main(["explore", "--data", str(made.data), "--manifest", str(made.manifest), "--out", str(out)]) == 0
    return out.read_text()


@pytest.mark.parametrize(
    ("task", "soft", "wanted"),
    [
        (CLASSES, False, "3 classes, one per image."),
        (CLASSES, True, "3 labels, with a share for each image."),
        (NUMBERS, False, "One number per image: Side, from 8 to 31."),
    ],
)
def test_the_page_speaks_of_what_the_task_has(
    task: Task, soft: bool, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("colours", "sizes", "ratios"):  # slow, and the same for all tasks
        monkeypatch.setattr(f"training.pages.explore_plots.plot_{name}", lambda *_: "data:,")
    page = write_page(make_competition(tmp_path, task, soft=soft), tmp_path)
    assert wanted in page
    for absent in ("abels per image", "o-occurrence", "culture", "No comparison with test"):
        assert absent not in page
    assert ("Maïs, doux" in page) == (task is CLASSES)
