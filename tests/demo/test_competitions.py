"""The museum drawn as other competitions, read by csv and Pillow."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from demo import museum
from demo.collection import TAGS, list_exhibits
from demo.competitions import COMPETITIONS, PRICES, STYLE_NAMES, TASKS, MuseumTask
from demo.museum import write_museum
from inference.manifest.labels import Labels
from inference.manifest.task import Form, Metric, Task
from inference.task.image_places import find_images
from zoo.tables.train_table import read_table


def read_rows(path: Path) -> dict[str, str]:
    """Return the cell of each id."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert len({name for name, _ in rows}) == len(rows)
    return dict(map(tuple, rows))  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
def test_the_tables_of_a_competition_have_one_row_per_image(
    task: MuseumTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(museum, "TRAIN_EXHIBITS", 200)
    monkeypatch.setattr(museum, "draw_pictures", lambda folder, exhibits, competition: drawn.append(len(exhibits)))
    write_museum(tmp_path, train_images=1, test_images=4, task=task)
    tables = {name: read_rows(tmp_path / f"{name}.csv") for name in ("train", "truth", "sample_submission")}
    assert {name: len(rows) for name, rows in tables.items()} == {"train": 200, "truth": 4, "sample_submission": 4}
    assert list(tables["truth"]) == list(tables["sample_submission"]), "in the same order"
    assert set(tables["sample_submission"].values()) == {COMPETITIONS[task].constant}
    assert all(tables["train"].values()) and all(tables["truth"].values())
    assert (tmp_path / "labels.csv").exists() == (task == "multilabel")
    assert drawn == [5]


def test_multiclass_has_one_of_ten_names_and_images_in_nested_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(museum, "TRAIN_EXHIBITS", 200)
    write_museum(tmp_path, train_images=3, test_images=3, task="multiclass")
    train, test = (read_rows(tmp_path / f"{name}.csv") for name in ("train", "truth"))
    assert set(train.values()) == set(STYLE_NAMES) and len(STYLE_NAMES) == 10
    assert all(" " in name for name in STYLE_NAMES)
    assert all(name.endswith(".jpg") for name in (*train, *test))
    found = find_images(tmp_path / "test_images", test, "{id:2}/{id}")
    drawn = [path for path in find_images(tmp_path / "train_images", train, "{id:2}/{id}") if path]
    assert len(drawn) == 3 and all(found)
    for path in filter(None, (*found, *drawn)):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
    # The kernel's own reader of tables takes the names, which hold spaces.
    labels = Labels(tuple(range(10)), STYLE_NAMES, {"labels": tuple(range(10))})
    form = Form(content="label_name", column="culture", top_k=1)
    task = Task(type="multiclass", id_column="image_id", submission=form, metric=Metric("accuracy"))
    table = read_table(tmp_path / "truth.csv", labels, task)
    assert [STYLE_NAMES[column] for column in table.targets.argmax(axis=1)] == list(test.values())


def test_the_other_answers_follow_from_what_is_drawn() -> None:
    exhibits = list_exhibits("train", 400)
    grades = Counter(COMPETITIONS["ordinal"].answer(exhibit) for exhibit in exhibits)
    assert set(grades) == {"0", "1", "2", "3"} and grades["0"] > grades["3"] > 5
    rare = [exhibit for exhibit in exhibits if COMPETITIONS["binary"].answer(exhibit) == "1"]
    assert 0.03 < len(rare) / 400 < 0.5 and all("towers" in exhibit.tags for exhibit in rare)
    for exhibit in exhibits[:50]:
        price = float(COMPETITIONS["regression"].answer(exhibit))
        assert price == pytest.approx(sum(PRICES[tag] for tag in exhibit.tags))
    assert len(set(PRICES)) == len(TAGS) and len(set(PRICES.values())) > 8
    single = [exhibit for exhibit in exhibits if COMPETITIONS["multiclass"].answer(exhibit)]
    assert all(len(exhibit.cultures) == 1 for exhibit in single) and 250 < len(single) < 400
