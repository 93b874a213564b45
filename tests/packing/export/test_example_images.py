from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.basics.errors import ImagesError
from inference.images.geometry import read_geometry, resize_image
from inference.images.read import read_image
from inference.manifest.labels import Labels
from inference.manifest.model import Model, Resize
from inference.manifest.task import Task
from packing.export import example_images
from packing.export.example_images import choose_geometry, find_rows, list_all_images, read_examples
from tests.conftest import write_picture
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


def write_folder(folder: Path, count: int, broken: tuple[str, ...]) -> None:
    (folder / "a").mkdir(parents=True)
    for index in range(count):
        write_picture(folder / "a" / f"{index:02}.png", (30 + index, 40), index)
    for name in broken:
        whole = (folder / "a" / "00.png").read_bytes()
        (folder / name).write_bytes(whole[:40] if name.startswith(".") else whole[: len(whole) // 2])


MODELS = [
    Model("one", "x", "labels", 24, (0.5,) * 3, (0.5,) * 3, "bilinear"),
    Model(
        "two",
        "x",
        "labels",
        (24, 32),
        (0.5,) * 3,
        (0.5,) * 3,
        "bicubic",
        views=("top_left",),
        resize=Resize("squash", 0.8),
    ),
    Model("three", "x", "labels", 24, (0.1,) * 3, (0.1,) * 3, "bilinear"),
]
NAMES = Labels((0,), ("x",), {"labels": (0,)})


def test_broken_images_are_skipped_with_a_note_and_each_image_is_decoded_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, 18, ("._00.png", "00.png", *(f"b{index}.png" for index in range(5))))
    decoded: list[Path] = []
    real = example_images.read_picture

    def read(path: Path, geometries: Any) -> Any:
        decoded.append(path)
        return real(path, geometries)

    monkeypatch.setattr(example_images, "read_picture", read)
    examples = read_examples(tmp_path, 17, False, MODELS, NAMES, Task())
    assert [path.name for path in examples.measured] == [f"{index:02}.png" for index in range(17)]
    assert len(decoded) == len(set(decoded)) == 2 + 17, "the other broken ones come after the last"
    assert capsys.readouterr().err.splitlines()[-1] == (f"note: {tmp_path}: skipped 2 broken images: ._00.png, 00.png")
    assert len(examples.arrays) == 2, "two models share a geometry"
    for model in MODELS:
        array, geometry = examples.arrays[choose_geometry(model)], read_geometry(model)
        wanted = [resize_image(read_image(path), geometry) for path in examples.measured]
        assert np.array_equal(array, np.stack(wanted))


def test_too_few_images_are_refused_with_the_broken_ones_named(tmp_path: Path) -> None:
    write_folder(tmp_path, 15, tuple(f"b{index}.png" for index in range(7)))
    with pytest.raises(ImagesError) as error:
        read_examples(tmp_path, 16, False, MODELS, NAMES, Task())
    assert str(error.value) == (
        f"{tmp_path}: found 15 images and 7 broken (b0.png, b1.png, b2.png, b3.png, b4.png and 2 more); "
        "wanted 16 for parity; add images"
    )


def test_one_broken_image_is_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path, 16, ("00.png",))
    read_examples(tmp_path, 20, False, MODELS[:1], NAMES, Task())
    note = f"note: {tmp_path}: skipped 1 broken image: 00.png"
    assert capsys.readouterr().err.splitlines()[-1] == note
