"""labels.csv of iMet and of other competitions."""

from pathlib import Path

import pytest

from inference.basics.errors import LabelsError
from inference.manifest.labels import read_group_prefixes, read_labels


def test_labels_without_a_prefix_are_one_group(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('label_id,label_name\n0,Sugar beet\n1,"Wheat, ""soft"""\n2,麦\n', encoding="utf-8")
    groups = read_group_prefixes(path)
    assert groups == {"labels": ""}
    labels = read_labels(path, groups)
    assert labels.names == ("Sugar beet", 'Wheat, "soft"', "麦") and labels.groups == {"labels": (0, 1, 2)}


def test_imets_own_columns_and_groups_are_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("attribute_id,attribute_name\n0,culture::x\n1,tag::men\n")
    assert read_group_prefixes(path) == {"culture": "culture::", "tag": "tag::"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,tag::men\n1,red\n", "label 1: found 'red'; wanted GROUP::NAME, as in tag::men, for all labels or for none"),
        ("0,red\n1,tag::men\n", "label 0: found 'red'; wanted GROUP::NAME, as in tag::men, for all labels or for none"),
        ("0,red\n1,red\n", "found label_name 'red' twice; wanted unique names"),
        ("0,red\n0,blue\n", "found label_id 0 twice; wanted unique ids"),
        ("zero,red\n", "found label_id 'zero'; wanted a whole number"),
    ],
)
def test_broken_labels_of_any_competition_are_named(rows: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("label_id,label_name\n" + rows)
    with pytest.raises(LabelsError) as error:
        read_labels(path, read_group_prefixes(path))
    assert str(error.value) == f"{path}: {message}"
