"""A competition's untouched folder against the task."""

from pathlib import Path

import pytest

from inference.basics.errors import PackError
from inference.manifest.labels import Labels
from inference.manifest.task import Form, Images, Task
from packing.check.competition import open_contents

LABELS = Labels((0, 1), ("a", "b"), {"labels": (0, 1)})
COLUMNS = "wanted id, attribute_ids, as `task` of the manifest says; give the competition's own sample, or correct the"


def make_folder(folder: Path, header: str, place: str, names: tuple[str, ...] = ("1.jpg", "2.jpg")) -> Path:
    images = folder / place
    images.mkdir(parents=True)
    for name in names:
        (images / name).write_bytes(b"x")
    (folder / "sample_submission.csv").write_text(f"{header}\n1,0\n2,0\n03,1\n4,1\n5,1\n6,1\n")
    return folder


def test_everything_that_differs_from_the_task_is_one_message(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "id,target", "test_images")
    with pytest.raises(PackError) as error:
        open_contents(folder, Task(), LABELS)
    assert str(error.value) == (
        f"{folder}/sample_submission.csv: found the columns id, target; {COLUMNS} task with `build_kernel.py set` or "
        f"`init`; {folder}/test: no such folder, but `task.images.path` of the manifest is test/{{id}}; found "
        f"test_images/ in {folder}"
    )


@pytest.mark.parametrize(
    ("header", "place", "names", "message"),
    [
        ("id,target", "test", ("1.jpg",), f"found the columns id, target; {COLUMNS}"),
        ("id,attribute_ids", "test_images", ("1.jpg",), "/test: no such folder, but `task.images.path` of the mani"),
        ("id,attribute_ids", "test", ("x.jpg",), "found 1 images but none of the 6 ids of the sample submission"),
        ("id,attribute_ids", "test", (), "/test: found no image; wanted files such as ID.png; `task.images.path` is"),
    ],
)
def test_each_difference_is_named(
    header: str, place: str, names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(PackError) as error:
        open_contents(make_folder(tmp_path, header, place, names), Task(), LABELS)
    assert message in str(error.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"absent/sample_submission.csv: no such file; .*found no folder in .*absent$"):
        open_contents(tmp_path / "absent", Task(), LABELS)


def test_ids_without_images_and_images_without_ids_are_counted(tmp_path: Path) -> None:
    task = Task(images=Images("data/test/{id}.jpg"), submission=Form(column="target"))
    folder = make_folder(tmp_path, "id,target", "data/test", ("1.jpg", "2.jpg", "3.jpg", "new.png", "notes.txt"))
    assert open_contents(folder, task, LABELS).describe(folder, task).splitlines() == [
        f"{folder}/sample_submission.csv: 6 images, the columns id, target",
        f"{folder}: 2 images found as data/test/{{id}}.jpg",
        "ids without an image: 4: 03, 4, 5 and 1 more",
        "images without an id: 2: 3.jpg, new.png",
    ]
