import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from inference.basics.errors import ManifestError
from inference.basics.files import hash_file
from inference.manifest.file import read_manifest, verify_files
from tests.training.merge.team import Team, list_labels, write_mine, write_theirs
from training.merge.join_models import check_heads, join_models, order_labels
from training.merge.sources import open_sources
from training.merge.team_folder import TeamFolder


def test_out_of_fold_scores_keep_their_labels(zoos: Team, tmp_path: Path) -> None:
    source = open_sources([zoos.mine, zoos.theirs], None, None, {})[1]
    joined = join_models(source, TeamFolder(tmp_path, copy=False), "bob/")
    ours, theirs = list_labels(zoos.mine), list_labels(zoos.theirs)
    assert [(model.name, model.member, model.fold) for model in joined] == [
        ("bob_net_f0", "bob_net", 0),
        ("bob_net_f1", "bob_net", 1),
        ("bob_wide", None, None),
    ]
    for model, before in zip(joined, read_manifest(zoos.theirs).models, strict=True):
        assert model.out_of_fold and before.out_of_fold
        verify_files([("s", model.out_of_fold.scores), ("i", model.out_of_fold.ids)], tmp_path)
        found = np.load(tmp_path / model.out_of_fold.scores.file)
        given = np.load(zoos.theirs.parent / before.out_of_fold.scores.file)
        for place, name in enumerate(ours):
            assert np.array_equal(found[:, place], given[:, theirs.index(name)])
        assert found.dtype == given.dtype
        # The network's outputs stand in the order of their labels.csv.
        ids = read_labels_by_name(zoos.mine)
        assert model.label_order == tuple(ids[name] for name in theirs)
        assert (tmp_path / model.out_of_fold.ids.file).samefile(zoos.theirs.parent / before.out_of_fold.ids.file)


def read_labels_by_name(path: Path) -> dict[str, int]:
    rows = (path.parent / "labels.csv").read_text().splitlines()[1:]
    return {name: int(label) for label, name in (row.split(",") for row in rows)}


def test_an_order_that_a_model_has_already_is_composed(zoos: Team) -> None:
    source = open_sources([zoos.mine, zoos.theirs], None, None, {})[1]
    model = source.zoo.manifest.models[0]
    ours, theirs = read_labels_by_name(zoos.mine), read_labels_by_name(zoos.theirs)
    outputs = ("tag::boats", "tag::trees", "culture::greek", "tag::birds", "culture::roman")
    given = dataclasses.replace(model, label_order=tuple(theirs[name] for name in outputs))
    assert order_labels(given, source) == tuple(ours[name] for name in outputs)
    same = dataclasses.replace(model, label_order=tuple(theirs[name] for name in ours))
    assert order_labels(same, source) == ()


def test_a_network_that_may_have_heads_is_refused_if_the_groups_have_another_order(zoos: Team, tmp_path: Path) -> None:
    source = open_sources([zoos.mine, zoos.theirs], None, None, {})[1]
    model = dataclasses.replace(source.zoo.manifest.models[0], layout="nchw")
    with pytest.raises(ManifestError) as error:
        check_heads(model, source)
    assert str(error.value) == (
        f"{zoos.theirs}: model net_f0 may have a head per group, and the groups stand in another order than in the "
        "first labels.csv; sort both by group in the same order"
    )
    check_heads(dataclasses.replace(model, group="tag"), source)
    sorted_too = (("culture::roman", "culture::greek", "tag::trees", "tag::birds", "tag::boats"), 7)
    theirs = write_theirs(tmp_path / "sorted", sorted_too)
    check_heads(model, open_sources([zoos.mine, theirs], None, None, {})[1])


def test_factories_of_one_name_stay_apart(tmp_path: Path) -> None:
    paths = [write_mine(tmp_path / owner) for owner in "ab"]
    for path in paths:
        code = path.parent / "networks.py"
        code.write_text(f"# {path.parent.name}\n")
        document = json.loads(path.read_text())
        document["models"][2] |= {
            "architecture": "networks.py:build",
            "factory": {"file": "networks.py", "sha256": hash_file(code), "function": "build"},
        }
        path.write_text(json.dumps(document))
    team = TeamFolder(tmp_path / "team", copy=True)
    joined = [
        join_models(source, team, base)[2]
        for source, base in zip(open_sources(paths, None, None, {}), ("", "b/"), strict=True)
    ]
    for model, owner, file in zip(joined, "ab", ("networks.py", "b/networks.py"), strict=True):
        assert model.factory and model.factory.file == file and model.architecture == f"{file}:build"
        assert (tmp_path / "team" / file).read_text() == f"# {owner}\n"
        assert hash_file(tmp_path / "team" / file) == model.factory.sha256


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    paths = [write_mine(tmp_path / owner) for owner in "ab"]
    np.save(tmp_path / "b" / "tags.oof.npy", np.zeros((1, 3), np.float16))
    source = open_sources(paths, None, None, {})[1]
    with pytest.raises(ManifestError, match=r"`models\[2\]\.out_of_fold\.scores\.sha256`: .*/b/tags\.oof\.npy: found"):
        join_models(source, TeamFolder(tmp_path / "team", copy=False), "b/")
