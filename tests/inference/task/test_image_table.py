import json
from pathlib import Path

import pytest

from inference.basics.errors import ImagesError
from inference.manifest.task import Images
from inference.task.image_table import read_image_table

COCO = {"images": [{"id": 7, "file_name": "images/000/7.jpg"}, {"id": "08", "file_name": "images/000/8.jpg"}]}


def test_a_csv_table_gives_the_columns_of_the_pattern(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("image,chain,day\na.jpg,87,mon\nb.jpg,5,tue\n")
    images = Images("test/{chain}/{day}/{id}", "test.csv", "image")
    wanted = {"a.jpg": {"chain": "87", "day": "mon"}, "b.jpg": {"chain": "5", "day": "tue"}}
    assert read_image_table(path, images) == wanted


@pytest.mark.parametrize("document", [COCO, COCO["images"]])
def test_a_coco_table_gives_the_files_of_its_images(document: object, tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(document))
    found = read_image_table(path, Images("test/{file_name}", "metadata.json"))
    assert found == {"7": {"file_name": "images/000/7.jpg"}, "08": {"file_name": "images/000/8.jpg"}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.csv", "id,path\n1,a\n", "no `file_name` column; found id, path"),
        ("test.json", "[1", "not a list of images in COCO's form: Expecting ',' delimiter: line 1 column 3 (char 2)"),
        ("test.json", "{}", "no 'images'; wanted `images`, each with id, file_name"),
        ("test.json", '{"images": [{"id": 1}]}', "no 'file_name'; wanted `images`, each with id, file_name"),
        ("test.json", '{"images": 3}', "not a list of images in COCO's form: 'int' object is not iterable"),
        ("none.csv", None, "no such file"),
        ("none.json", None, "no such file"),
    ],
)
def test_a_broken_table_is_refused(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ImagesError) as error:
        read_image_table(path, Images("test/{file_name}", name))
    assert str(error.value) == f"{path}: {message}"
