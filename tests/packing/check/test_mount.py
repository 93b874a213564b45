"""The competition's folder as a dry run shows it."""

import csv
from pathlib import Path

import pytest

from inference.basics.errors import OptionError
from inference.manifest.labels import Labels
from inference.manifest.task import Form, Images, Task
from inference.task.competition import open_competition
from packing.check.competition import open_contents
from packing.check.mount import mount_competition, refuse_inside

LABELS = Labels((0, 1), ("a", "b, c"), {"labels": (0, 1)})
IDS = ("x/1.jpg", "x/2.jpg", "y/1.jpg")


def make_competition(folder: Path, task: Task, rows: list[tuple[str, ...]]) -> Path:
    for name in IDS:
        path = folder / task.images.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "train").mkdir()
    (folder / "train.csv").write_text("id\n")
    (folder / task.sample).parent.mkdir(exist_ok=True, parents=True)
    with (folder / task.sample).open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    return folder


WIDE = [("id", "b, c", "a"), *((name, "0.50", " 0.5") for name in IDS)]


@pytest.mark.parametrize("images", ["test/{id}", "{id}", "data/{id}"])
@pytest.mark.parametrize("sample", ["sample_submission.csv", "data/sample.csv"])
@pytest.mark.parametrize("limit", [None, 1, 2, 3])
def test_the_sample_is_cut_and_everything_else_is_at_its_place(
    images: str, sample: str, limit: int | None, tmp_path: Path
) -> None:
    task = Task(
        type="multiclass", sample=sample, images=Images(images), submission=Form("wide", "probability", sum_to_one=True)
    )
    own = make_competition(tmp_path / "own", task, WIDE)
    mount_competition(own, tmp_path / "place", task, open_contents(own, task, LABELS), limit)
    with (tmp_path / "place" / sample).open(newline="", encoding="utf-8-sig") as file:
        assert [tuple(row) for row in csv.reader(file)] == WIDE[: (limit or 3) + 1], "cells stay as they are"
    found, paths = open_competition(task, LABELS, tmp_path / "place")
    assert [path and path.read_text() for path in paths] == list(IDS[: limit or 3]) == list(found.ids)
    assert (tmp_path / "place" / "train.csv").read_text() == "id\n" and (tmp_path / "place" / "train").is_dir()


def test_all_rows_of_the_first_images_are_kept(tmp_path: Path) -> None:
    task = Task(id_column="row", submission=Form("long", "probability", "p"))
    rows = [(f"{name}_{label}", "0") for label in LABELS.names for name in IDS]
    own = make_competition(tmp_path / "own", task, [("row", "p"), *rows])
    mount_competition(own, tmp_path / "place", task, open_contents(own, task, LABELS), 2)
    found, _ = open_competition(task, LABELS, tmp_path / "place")
    assert found.ids == IDS[:2] and len(found.rows) == 4


def test_a_limit_below_1_and_an_output_in_the_competition_are_refused(tmp_path: Path) -> None:
    task = Task()
    own = make_competition(tmp_path / "own", task, [("id", "attribute_ids"), *((name, "0") for name in IDS)])
    with pytest.raises(OptionError, match=r"^--limit: found 0; wanted at least 1$"):
        mount_competition(own, tmp_path / "place", task, open_contents(own, task, LABELS), 0)
    with pytest.raises(OptionError, match=r"^--out: found .*/own/out, in the competition's folder, which is read-only"):
        refuse_inside(own / "out", own)
    refuse_inside(tmp_path / "out", own)
