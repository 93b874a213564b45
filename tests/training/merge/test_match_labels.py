import json
from pathlib import Path

import pytest

from inference.basics.errors import ManifestError
from inference.basics.files import hash_file
from inference.manifest.file import read_manifest
from tests.training.merge.team import Team, write_mine, write_theirs
from training.merge.match_labels import match_labels, merge_exchanged
from training.merge.merge_zoos import MergeSettings, merge_zoos
from zoo.tables.out_of_fold import open_zoo


def test_labels_are_matched_by_name(zoos: Team) -> None:
    mine, theirs = open_zoo(zoos.mine), open_zoo(zoos.theirs)
    match = match_labels(mine, theirs)
    for label, name in zip(theirs.labels.ids, theirs.labels.names, strict=True):
        assert mine.labels.names[mine.labels.ids.index(match.ids[label])] == name
    for group in ("all", "culture", "tag"):
        own = [theirs.labels.names[column] for column in theirs.labels.columns(group)]
        team = [mine.labels.names[column] for column in mine.labels.columns(group)]
        assert [own[place] for place in match.order(group)] == team
        assert not match.is_same(group) and match_labels(mine, mine).is_same(group)


def test_differing_labels_are_named_up_to_five_on_each_side(tmp_path: Path) -> None:
    mine, theirs = write_mine(tmp_path / "a"), write_mine(tmp_path / "b")
    labels = tmp_path / "b" / "labels.csv"
    more = "".join(f"{900 + number},tag::new {number}\n" for number in range(7))
    labels.write_text(labels.read_text().replace("tag::boats", "tag::ships") + more)
    document = json.loads(theirs.read_text())
    document["labels"]["sha256"] = hash_file(labels)
    theirs.write_text(json.dumps(document))
    with pytest.raises(ManifestError) as error:
        match_labels(open_zoo(mine), open_zoo(theirs))
    assert str(error.value) == (
        f"{theirs}: the labels differ from those of {mine}: only here tag::new 0, tag::new 1, tag::new 2, tag::new 3, "
        "tag::new 4 and 3 more; only there tag::boats; train both on the same labels"
    )


def test_other_groups_are_refused(tmp_path: Path) -> None:
    mine, theirs = write_mine(tmp_path / "a"), write_mine(tmp_path / "b")
    document = json.loads(theirs.read_text().replace('"culture"', '"origin"'))
    theirs.write_text(json.dumps(document))
    with pytest.raises(ManifestError) as error:
        match_labels(open_zoo(mine), open_zoo(theirs))
    assert str(error.value) == (
        f"{theirs}: `labels.groups`: found {{'origin': 'culture::', 'tag': 'tag::'}}; "
        f"wanted {{'culture': 'culture::', 'tag': 'tag::'}}, as in {mine}"
    )


def exchange(path: Path, *names: tuple[str, str], mirror: str = "hflip") -> Path:
    """Let a zoo's mirror exchange the labels of these names."""
    labels = open_zoo(path).labels
    document = json.loads(path.read_text())
    pairs = [[labels.ids[labels.names.index(name)] for name in pair] for pair in names]
    document["labels"].setdefault("exchanged", {})[mirror] = pairs
    path.write_text(json.dumps(document))
    return path


def test_exchanged_labels_are_translated_and_joined(tmp_path: Path) -> None:
    mine = exchange(write_mine(tmp_path / "a"), ("tag::birds", "tag::boats"))
    theirs = exchange(write_theirs(tmp_path / "b"), ("culture::roman", "culture::greek"), ("tag::boats", "tag::birds"))
    merge_zoos(MergeSettings([mine, theirs], tmp_path / "team"))
    assert read_manifest(tmp_path / "team" / mine.name).labels.exchanged == {"hflip": ((0, 1), (2, 3))}
    other = exchange(write_theirs(tmp_path / "c"), ("tag::birds", "tag::trees"))
    zoos = [open_zoo(path) for path in (mine, other)]
    with pytest.raises(ManifestError) as error:
        merge_exchanged([(zoo, match_labels(zoos[0], zoo)) for zoo in zoos])
    assert str(error.value) == (
        f"{other}: `labels.exchanged.hflip`: found 'tag::birds' with 'tag::trees'; wanted 'tag::boats', as in {mine}"
    )
