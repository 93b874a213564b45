from pathlib import Path

import numpy as np

from packing.export.example_images import find_rows, list_all_images
from zoo.tables.train_table import Table


def make_table(ids: tuple[str, ...], images: tuple[str, ...] | None = None) -> Table:
    return Table(ids, np.eye(len(ids), dtype=bool), images)


def write_images(folder: Path, *places: str) -> dict[str, Path]:
    """Write empty files; return the path of each place."""
    paths = {place: folder / place for place in places}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_images_of_subfolders_are_listed_by_path(tmp_path: Path) -> None:
    paths = write_images(tmp_path, "b/2.png", "a.jpg", "b.jpeg", "notes.txt", "b/1.PNG")
    assert list_all_images(tmp_path) == [paths[place] for place in ("a.jpg", "b/1.PNG", "b/2.png", "b.jpeg")]


def test_an_id_is_a_name_with_the_suffix_or_without_or_a_path(tmp_path: Path) -> None:
    paths = write_images(tmp_path, "x.png", "ab/y z.jpg", "cd/w.v.png", "rest.png")
    table = make_table(("ab/y z", "x", "w.v.png", "absent"))
    rows = find_rows(tmp_path, list(paths.values()), table)
    assert rows == {paths["ab/y z.jpg"]: 0, paths["x.png"]: 1, paths["cd/w.v.png"]: 2}


def test_the_tables_paths_tell_images_of_one_name_apart(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "train", "cat/1.png", "dog/1.png", "dog/2.png")
    table = make_table(("1", "2", "one"), ("train/dog/1.png", "train/dog/2.png", "train/cat/1.png"))
    wanted = {paths["dog/1.png"]: 0, paths["dog/2.png"]: 1, paths["cat/1.png"]: 2}
    assert find_rows(tmp_path / "train", list(paths.values()), table) == wanted
    assert find_rows(tmp_path, list(paths.values()), table) == wanted
    assert find_rows(tmp_path / "train", list(paths.values()), make_table(("1", "2"))) == {paths["dog/2.png"]: 1}
