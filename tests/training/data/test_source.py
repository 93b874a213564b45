import shutil
from pathlib import Path

import pytest

from inference.basics.errors import TrainingError
from inference.manifest.task import Task
from tests.training.small_tasks import CLASSES, make_competition
from training.data.pictures import find_pictures
from training.data.source import find_source, place_pictures
from zoo.tables.train_table import read_table


def test_the_tables_of_a_zoo_come_before_those_of_the_folder(museum: Path, tmp_path: Path) -> None:
    made = make_competition(tmp_path, CLASSES, images=4)
    source = find_source(made.manifest, museum)
    assert (source.task, source.train, source.labels_path) == (
        CLASSES,
        made.zoo / "train.csv",
        made.zoo / "labels.csv",
    )
    assert source.labels.names == ("Sugar beet", "Maïs, doux", "Black-grass")


def test_without_a_zoo_the_folder_has_the_tables_and_the_task_is_imets(museum: Path, tmp_path: Path) -> None:
    source = find_source(tmp_path / "weights_manifest.json", museum)
    assert (source.task, source.train) == (Task(), museum / "train.csv")
    assert list(source.labels.groups) == ["culture", "tag"]


def test_a_zoo_without_train_csv_has_the_task_and_the_folder_the_tables(tmp_path: Path) -> None:
    made = make_competition(tmp_path, CLASSES, images=4)
    for name in ("train.csv", "labels.csv"):
        shutil.move(made.zoo / name, made.data / name)
    source = find_source(made.manifest, made.data)
    assert (source.task, source.train) == (CLASSES, made.data / "train.csv")


def test_files_named_by_the_table_are_found_with_their_spaces(tmp_path: Path) -> None:
    made = make_competition(tmp_path, CLASSES, images=4)
    source = find_source(made.manifest, made.data)
    table = read_table(source.train, source.labels, source.task)
    folder, files = place_pictures(made.data, table)
    paths = find_pictures(folder, table.ids, files=files)
    assert paths == [made.data / "train pictures" / f"plant {place}.png" for place in range(4)]
    (made.data / "train pictures" / "plant 2.png").unlink()
    with pytest.raises(TrainingError) as caught:
        find_pictures(folder, table.ids, files=files)
    assert str(caught.value) == (
        f"{made.data}: no file for 1 of the 4 images of train.csv, such as train pictures/plant 2.png; "
        "add them, or skip them with --allow-missing"
    )
    with pytest.raises(TrainingError) as caught:
        find_pictures(made.zoo, table.ids, files=files)
    assert str(caught.value) == (
        f"{made.zoo}: holds none of the 4 images of train.csv; wanted files such as train pictures/plant 0.png"
    )
