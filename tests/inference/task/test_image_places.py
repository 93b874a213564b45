"""The files of the test images, found by their ids."""

from pathlib import Path

import pytest
from PIL import Image

from inference.basics.errors import ImagesError
from inference.images.formats import FORMATS
from inference.task.image_places import SUFFIXES, find_images


def test_each_suffix_that_is_looked_for_is_one_of_a_format_that_is_read() -> None:
    Image.init()
    assert {Image.EXTENSION.get(suffix, "BMP") for suffix in SUFFIXES} <= set(FORMATS)
    assert len(set(SUFFIXES)) == len(SUFFIXES) and all(suffix == suffix.lower() for suffix in SUFFIXES)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "avif", "jp2", "tga", "ppm", "JPG"])
def test_images_of_a_rare_suffix_are_found(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a.{suffix}").touch()
    assert find_images(tmp_path, ["a"]) == [tmp_path / f"a.{suffix}"]


def test_images_are_found_by_id_with_any_suffix(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.JPEG", "c.txt"):
        (tmp_path / name).touch()
    assert find_images(tmp_path, ["b", "a", "c"]) == [tmp_path / "b.JPEG", tmp_path / "a.png", None]


def test_each_fault_of_a_folder_has_its_message(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.png").touch()
    messages = {}
    for name in ("absent", "empty", "other"):
        with pytest.raises(ImagesError) as error:
            find_images(tmp_path / name, ["a", "b"])
        messages[name] = str(error.value).removeprefix(f"{tmp_path}/{name}: ")
    assert messages == {
        "absent": "no such folder of images; give the folder of the test images with --images",
        "empty": "found no image; wanted files such as ID.png",
        "other": "found 1 images but none of the 2 ids of the sample submission; "
        "check that --images and --sample belong together",
    }
