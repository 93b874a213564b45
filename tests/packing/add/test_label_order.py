from pathlib import Path

import pytest

from inference.basics.errors import LabelsError
from inference.manifest.labels import Labels
from packing.add.label_order import read_label_order

LABELS = Labels((10, 20, 30, 40), ("tag::a", "culture::b", "tag::c, d", "tag::e"), {"tag": (0, 2, 3), "culture": (1,)})


def read(text: str, tmp_path: Path, group: str = "tag") -> tuple[int, ...]:
    path = tmp_path / "order.txt"
    path.write_text(text)
    return read_label_order(path, LABELS, group)


@pytest.mark.parametrize(
    "text",
    [
        "40\n10\n30\n",
        "tag::e\ntag::a\ntag::c, d",
        "\n tag::e \ntag::a\n\ntag::c, d\n",
        'label_id,label_name\n40,tag::e\n20,culture::b\n10,tag::a\n30,"tag::c, d"\n',
        'attribute_id,attribute_name\n0,tag::e\n1,tag::a\n2,"tag::c, d"\n',  # ids of a team of its own
    ],
)
def test_ids_names_and_tables_give_the_order(text: str, tmp_path: Path) -> None:
    assert read(text, tmp_path) == (40, 10, 30)


def test_the_order_of_labels_csv_is_not_kept(tmp_path: Path) -> None:
    assert read("10\n30\n40\n", tmp_path) == ()
    assert read("40\n30\n20\n10\n", tmp_path, "all") == (40, 30, 20, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10\n30\n", "found no label 40; wanted each of the 3 labels of 'tag' once"),
        ("", "found no label 10; wanted each of the 3 labels of 'tag' once"),
        ("10\n30\n40\n10\n", "found label 10 twice; wanted each of the 3 labels of 'tag' once"),
        ("10\n20\n30\n40\n", "found label 20, which is of another group; wanted each of the 3 labels of 'tag' once"),
        ("10\n99\n", "label 2: found '99'; wanted a label_id or a label_name of labels.csv"),
        ("tag::a\ntag::x\n", "label 2: found 'tag::x'; wanted a label_id or a label_name of labels.csv"),
    ],
)
def test_other_labels_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelsError) as error:
        read(text, tmp_path)
    assert str(error.value) == f"{tmp_path / 'order.txt'}: {message}"
