"""The files of the test images, found by their ids."""

from pathlib import Path

import pytest
from PIL import Image

from inference.basics.errors import ImagesError
from inference.images.formats import FORMATS
from inference.task.image_places import SUFFIXES, find_images, list_images


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
        "check that --images and --sample belong together, and `task.images.path` of the manifest",
    }


@pytest.mark.parametrize(
    ("file", "image", "path"),
    [
        ("{id}", "2216849948.jpg", "2216849948.jpg"),
        ("{id}", "000940378805c44108d287872b2f04ce", "000940378805c44108d287872b2f04ce.tif"),
        ("{id}", "my photo.1", "my photo.1.png"),
        ("{id}", "ab/abc", "ab/abc.jpg"),
        ("{id:3}/{id}.jpg", "00012345", "000/00012345.jpg"),
        ("{id:1}/{id:2}/{id}", "f0a1", "f/f0/f0a1.png"),
        ("{file_name}", "7", "000/7.jpg"),
        ("{chain}/{id}", "99e9.jpg", "87/99e9.jpg"),
    ],
)
def test_an_image_is_found_by_each_pattern(file: str, image: str, path: str, tmp_path: Path) -> None:
    for name in (path, f"other/{path}", "z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    cells = {"file_name": path, "chain": "87"}
    found = find_images(tmp_path, ["none", image], file, {"none": cells | {"file_name": "none"}, image: cells})
    assert found == [None, tmp_path / path]


def test_a_file_without_the_suffix_of_an_image_is_none(tmp_path: Path) -> None:
    for name in ("bare", "a.png"):
        (tmp_path / name).touch()
    assert find_images(tmp_path, ["a", "bare"]) == [tmp_path / "a.png", None]


@pytest.mark.parametrize("image", ["../outside", "/outside", "a/../../outside", "..", "in\0side", "deep/../../outside"])
def test_an_id_never_leads_out_of_the_folder(image: str, tmp_path: Path) -> None:
    home = tmp_path / "test"
    (home / "deep").mkdir(parents=True)
    (tmp_path / "outside.png").touch()
    (home / "good.png").touch()
    assert find_images(home, ["good", image]) == [home / "good.png", None]


def test_links_out_of_the_folder_are_no_images_but_links_inside_are(tmp_path: Path) -> None:
    home, outside = tmp_path / "test", tmp_path / "outside"
    for folder in (home / "own", outside):
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    (home / "out.png").symlink_to(outside / "a.png")
    (home / "in.png").symlink_to("own/a.png")
    (home / "away").symlink_to(outside)
    found = find_images(home, ["in", "out", "away/a", "own/a"])
    assert found == [home / "in.png", None, None, home / "own/a.png"]
    assert find_images(home, ["out", "away/a"], follow_links=True) == [home / "out.png", home / "away/a.png"]
    (tmp_path / "link").symlink_to(home)
    assert find_images(tmp_path / "link", ["in"]) == [tmp_path / "link" / "in.png"], "the folder itself may be a link"


def test_an_id_without_a_row_in_the_table_has_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert find_images(tmp_path, ["1", "2"], "{file}", {"1": {"file": "a.png"}}) == [tmp_path / "a.png", None]


def test_images_of_subfolders_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.JPG", "0.png", "a/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in list_images(tmp_path, 9)] == ["0.png", "a/1.JPG", "b/2.png"]
    assert len(list_images(tmp_path, 2)) == 2
