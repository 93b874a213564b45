from pathlib import Path
from typing import Any

import pytest

from inference.basics.errors import OptionError
from tests.training.merge.team import Team, write_mine
from training.merge.sources import choose_tags, open_sources


def test_names_are_prefixed_only_where_they_clash(zoos: Team) -> None:
    mine, theirs = open_sources([zoos.mine, zoos.theirs], None, None, {})
    assert (mine.tag, mine.prefix, mine.share) == ("alice", "", 0.5)
    assert (theirs.tag, theirs.prefix, theirs.share) == ("bob", "bob_", 0.5)
    assert (theirs.rename("net_f0"), theirs.name_part("blend"), theirs.name_part("trees")) == (
        "bob_net_f0",
        "bob_blend",
        "bob_trees",
    )
    given = open_sources([zoos.mine, zoos.theirs], ["a ", "b-"], [3, 1], {})
    assert [(one.prefix, one.share) for one in given] == [("a_", 0.75), ("b-", 0.25)]


def test_zoos_in_folders_of_one_name_get_different_tags() -> None:
    paths = [Path(f"/{owner}/zoo/weights_manifest.json") for owner in "abc"]
    assert choose_tags([*paths, Path("/x/Bob's bundle/dataset/weights_manifest.json")]) == [
        "zoo",
        "zoo2",
        "zoo3",
        "Bob_s_bundle",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefixes": ["a"]}, "--prefixes: found 1 values; wanted 2, one per manifest"),
        ({"weights": [1, 2, 3]}, "--weights: found 3 values; wanted 2, one per manifest"),
        ({"weights": [-1, 2]}, "--weights: found -1 2; wanted numbers from 0, one above 0"),
        ({"weights": [0, 0]}, "--weights: found 0 0; wanted numbers from 0, one above 0"),
        ({"weights": [float("nan"), 1]}, "--weights: found nan 1; wanted numbers from 0, one above 0"),
        ({"prefixes": ["", ""]}, "--prefixes: 'cnn_tag' names a part of {mine} and of {theirs}; choose other prefixes"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str, zoos: Team) -> None:
    given = {"prefixes": None, "weights": None} | options
    with pytest.raises(OptionError) as error:
        open_sources([zoos.mine, zoos.theirs], given["prefixes"], given["weights"], {})
    assert str(error.value) == message.format(mine=zoos.mine, theirs=zoos.theirs)


def test_one_zoo_or_the_same_twice_is_refused(tmp_path: Path) -> None:
    path = write_mine(tmp_path / "a")
    with pytest.raises(OptionError) as error:
        open_sources([path], None, None, {})
    assert str(error.value) == "merge: found 1 manifest; wanted at least 2: yours and a teammate's"
    with pytest.raises(OptionError) as error:
        open_sources([path, path], None, None, {})
    assert str(error.value) == f"merge: found {path}, {path}; wanted different manifests"
