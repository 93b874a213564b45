import csv
import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.collection import CULTURES, NAMES, TAGS, list_exhibits, make_exhibit
from demo.drawing import STYLES, draw_exhibit
from demo.museum import write_museum
from demo.shapes import SHAPES, draw_shape
from inference.basics.errors import OutputError

TRAIN, TEST = list_exhibits("train", 6000), list_exhibits("test", 600)


@pytest.fixture(scope="module")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("museum")
    write_museum(folder, train_images=12, test_images=12)
    return folder


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_an_image_does_not_depend_on_other_images(museum: Path, tmp_path: Path) -> None:
    write_museum(tmp_path, train_images=0, test_images=3)
    again = {path.name: path.read_bytes() for path in (tmp_path / "test").iterdir()}
    assert len(again) == 3
    assert all((museum / "test" / name).read_bytes() == content for name, content in again.items())


def test_tables_have_imets_formats(museum: Path) -> None:
    names = read_rows(museum / "labels.csv")
    assert names[0] == ["attribute_id", "attribute_name"]
    assert names[1:] == [[str(index), name] for index, name in enumerate(NAMES)]
    for table, rows in (("train", 6000), ("truth", 12), ("sample_submission", 12)):
        header, *body = read_rows(museum / f"{table}.csv")
        assert header == ["id", "attribute_ids"] and len(body) == rows
        assert body == sorted(body)
        for _, cell in body:
            given = [int(word) for word in cell.split(" ")]
            assert given == sorted(set(given)) and all(label < len(NAMES) for label in given)
    drawn = {path.stem for path in (museum / "test").iterdir()}
    assert drawn == {row[0] for row in read_rows(museum / "truth.csv")[1:]}
    assert drawn == {row[0] for row in read_rows(museum / "sample_submission.csv")[1:]}


def test_a_second_run_skips_existing_images_and_leaves_no_temporary_files(museum: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in museum.rglob("*.png")}
    write_museum(museum, train_images=12, test_images=12)
    assert {path: path.stat().st_mtime_ns for path in museum.rglob("*.png")} == before
    assert not [path for path in museum.rglob("*") if path.name.startswith(".")]


def test_ids_are_unique_and_of_12_to_16_hexadecimal_characters() -> None:
    ids = [exhibit.id for exhibit in (*TRAIN, *TEST)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{12,16}", one) for one in ids)
    assert {len(one) for one in ids} == {12, 13, 14, 15, 16}


def test_exhibits_have_one_to_six_labels_with_a_long_tail() -> None:
    counts = [len(exhibit.labels) for exhibit in (*TRAIN, *TEST)]
    assert (min(counts), max(counts)) == (1, 6)
    frequency = Counter(label for exhibit in TRAIN for label in exhibit.annotated)
    assert len(frequency) == len(NAMES) == len(CULTURES) + len(TAGS)
    assert 8 <= len(CULTURES) <= 12 and 20 <= len(TAGS) <= 30
    assert max(frequency.values()) > 15 * min(frequency.values())


def test_only_training_images_miss_labels_and_never_all() -> None:
    assert all(exhibit.annotated == exhibit.labels for exhibit in TEST)
    assert all(set(exhibit.annotated) <= set(exhibit.labels) and exhibit.annotated for exhibit in TRAIN)
    missing = sum(len(exhibit.labels) - len(exhibit.annotated) for exhibit in TRAIN)
    assert 0.03 < missing / sum(len(exhibit.labels) for exhibit in TRAIN) < 0.10


def test_a_few_images_are_very_long() -> None:
    ratios = [max(one.width, one.height) / min(one.width, one.height) for one in (*TRAIN, *TEST)]
    long = [ratio for ratio in ratios if ratio > 2]
    assert 0.005 < len(long) / len(ratios) < 0.02 and min(long) > 5 and max(long) < 21


def test_images_are_rgb_png_files_of_the_exhibits_size(museum: Path) -> None:
    for exhibit in TEST[:12]:
        with Image.open(museum / "test" / f"{exhibit.id}.png") as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (exhibit.width, exhibit.height))


def test_every_tag_has_its_own_shape_and_every_culture_its_own_style() -> None:
    assert set(SHAPES) == set(TAGS) and set(STYLES) == set(CULTURES)
    masks = {tag: np.asarray(draw_shape(tag, 24, 0)).astype(float) for tag in TAGS}
    for tag, mask in masks.items():
        assert all(np.abs(mask - other).mean() > 10 for name, other in masks.items() if name != tag), tag
    assert len({(style.ground, style.ornament) for style in STYLES.values()}) == len(CULTURES)


def test_the_labels_of_an_exhibit_change_its_image() -> None:
    exhibit = make_exhibit("test", 3)
    culture = next(label for label in range(len(CULTURES)) if label not in exhibit.labels)
    tags = tuple(label for label in exhibit.labels if label >= len(CULTURES))
    other = dataclasses.replace(exhibit, labels=(culture, *tags))
    assert np.asarray(draw_exhibit(exhibit)).tolist() != np.asarray(draw_exhibit(other)).tolist()
    assert draw_exhibit(exhibit) == draw_exhibit(make_exhibit("test", 3))


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (-5, 1, "--train: found -5; wanted 0 to 6000, the rows of train.csv"),
        (6001, 1, "--train: found 6001; wanted 0 to 6000, the rows of train.csv"),
        (0, 0, "--test: found 0; wanted 1 or more; a submission needs a row"),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_written(
    tmp_path: Path, train: int, test: int, message: str
) -> None:
    with pytest.raises(OutputError, match=f"^{re.escape(message)}$"):
        write_museum(tmp_path / "museum", train, test)
    assert not (tmp_path / "museum").exists()
