"""From the zoos of a team to one zoo, its bundle and its submission."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import build_kernel
from inference.basics.errors import OptionError, OutputError, TrainingError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.run.predict import run
from inference.run.state import Request
from packing.add.add import Addition, add_model
from packing.export.export_zoo import export_zoo
from packing.pack.metadata import Names
from packing.pack.write_bundle import pack
from tests.conftest import LABELS, Workshop, write_network, write_rows
from tests.training.merge.team import IDS, Team, list_labels, reorder, write_mine, write_theirs
from training.merge.merge_zoos import MergeSettings, merge_zoos
from training.second_stage.fit_ensemble import StageSettings, fit_second_stage
from training.second_stage.fitted import LayerSettings
from zoo.fitted_for import is_stale

MIXED = ("tag::trees", "culture::roman", "tag::birds", "culture::greek", "tag::boats")


def test_the_blends_are_joined_by_the_weights_of_the_zoos(
    zoos: Team, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge_zoos(
        MergeSettings([zoos.mine, zoos.theirs], tmp_path / "team", train=zoos.mine.parent / "train.csv", weights=(1, 3))
    )
    team = read_manifest(tmp_path / "team" / MANIFEST_NAME)
    assert team.ensemble.weights["culture"] == pytest.approx(
        {"net_f0": 0.25 / 3, "net_f1": 0.5 / 3, "bob_net_f0": 0.125, "bob_net_f1": 0.25, "bob_wide": 0.375}
    )
    for weights in team.ensemble.weights.values():
        mine = sum(weight for name, weight in weights.items() if not name.startswith("bob_"))
        assert (mine, sum(weights.values())) == pytest.approx((0.25, 1.0))
    assert not team.ensemble.stackers and not team.ensemble.mix and team.ensemble.fitted_for is None
    assert team.task == read_manifest(zoos.mine).task
    report = capsys.readouterr().out.splitlines()
    assert report[0].split() == ["zoo", "model", "member", "group", "images", "held", "out", "F2"]
    assert [line.split()[:5] for line in report[1:7]] == [
        ["alice", "net_f0", "net", "all", "120"],
        ["alice", "net_f1", "net", "all", "120"],
        ["alice", "tags", "tags", "tag", "240"],
        ["bob", "bob_net_f0", "bob_net", "all", "80"],
        ["bob", "bob_net_f1", "bob_net", "all", "160"],
        ["bob", "bob_wide", "bob_wide", "all", "240"],
    ]
    assert all(0.5 < float(line.split()[5]) < 1 for line in report[1:7])
    assert report[7] == "images held out: alice 240, bob 240; by all of these 240"
    assert report[8] == "the stackers are left out; --keep-stages keeps them"
    assert report[10] == f"the decision is that of {zoos.mine} until `build_kernel.py ensemble` fits one"


def test_a_model_alone_scores_the_same_whatever_the_order_of_its_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same predictions under another order and other ids of the labels have the same figure."""
    mine, theirs = write_mine(tmp_path / "a"), write_mine(tmp_path / "b", (MIXED, 50))
    names = list_labels(mine)
    for model in read_manifest(theirs).models:
        given = np.load(mine.parent / f"{model.name}.oof.npy")
        np.save(theirs.parent / f"{model.name}.oof.npy", reorder(mine, model.name, given, MIXED))
    declare_again(theirs)
    assert names != list_labels(theirs)
    merge_zoos(MergeSettings([mine, theirs], tmp_path / "team", train=mine.parent / "train.csv"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:7]]
    assert [row[5] for row in rows[:3]] == [row[5] for row in rows[3:]]


def declare_again(path: Path) -> None:
    """Write the hashes of a zoo's out-of-fold scores again."""
    document = json.loads(path.read_text())
    for model in document["models"]:
        model["out_of_fold"]["scores"]["sha256"] = hash_file(path.parent / f"{model['name']}.oof.npy")
    path.write_text(json.dumps(document))


def test_an_image_of_other_data_is_named(zoos: Team, tmp_path: Path) -> None:
    theirs = write_theirs(tmp_path / "b")
    ids = theirs.parent / "wide.oof.ids.txt"
    ids.write_text(ids.read_text().replace(IDS[7], "stranger"))
    document = json.loads(theirs.read_text())
    document["models"][2]["out_of_fold"]["ids"]["sha256"] = hash_file(ids)
    theirs.write_text(json.dumps(document))
    with pytest.raises(TrainingError) as error:
        merge_zoos(MergeSettings([zoos.mine, theirs], tmp_path / "team", train=zoos.mine.parent / "train.csv"))
    assert str(error.value) == f"{theirs}: image stranger is missing in train.csv; check --train"
    merge_zoos(MergeSettings([zoos.mine, theirs], tmp_path / "team"))


def test_one_second_stage_is_fitted_over_all_models(
    zoos: Team, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge_zoos(MergeSettings([zoos.mine, zoos.theirs], tmp_path / "team"))
    layers = LayerSettings(cnn=False, trees=False)
    train = zoos.mine.parent / "train.csv"
    fit_second_stage(StageSettings(tmp_path / "team" / MANIFEST_NAME, train, folds=2, layers=layers))
    assert "4 members, 240 images" in capsys.readouterr().out
    team = read_manifest(tmp_path / "team" / MANIFEST_NAME)
    assert {name for name, weight in team.ensemble.weights["tag"].items() if weight > 0} & {"net_f0", "bob_wide"}
    assert team.ensemble.out_of_fold and not is_stale(team)


def test_an_existing_folder_is_refused(zoos: Team, tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    with pytest.raises(OutputError) as error:
        merge_zoos(MergeSettings([zoos.mine, zoos.theirs], tmp_path / "team"))
    assert str(error.value) == f"{tmp_path}/team: exists; choose a new folder with --out"


@pytest.fixture(scope="module")
def mine(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of one real network, whose labels have another order and other ids than those of the workshop."""
    home = tmp_path_factory.mktemp("mine")
    labels = write_rows(
        home / "labels.csv",
        ("attribute_id", "attribute_name"),
        [(10 + place, name) for place, name in enumerate(MIXED)],
    )
    rows = [("a", "13 12"), ("b", "13 12 14"), ("c", "12"), ("d", "10")]
    train = write_rows(home / "train.csv", ("id", "attribute_ids"), rows)
    checkpoint = write_network(home / "everything.safetensors", "test_efficientnet", 5, 9)
    add_model(home / MANIFEST_NAME, Addition(checkpoint, "test_efficientnet", 64, "all", "everything"), labels, train)
    return home / MANIFEST_NAME


def test_a_bundle_joins_with_a_given_weight_and_its_outputs_in_the_order_of_the_team(
    mine: Path, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    team, onnx = tmp_path / "team", tmp_path / "onnx"
    words = ["merge", str(mine), str(workshop.dataset / MANIFEST_NAME), "--out", str(team), "--weights", "0.25", "0.75"]
    assert build_kernel.main(words) == 0
    manifest = read_manifest(team / MANIFEST_NAME)
    assert [(model.name, model.checkpoint is None) for model in manifest.models] == [
        ("everything", False),
        ("bundle_everything", True),
        ("bundle_culture", True),
        ("bundle_tag", True),
    ]
    export_zoo(team / MANIFEST_NAME, onnx, workshop.images)
    pack(team / MANIFEST_NAME, onnx, tmp_path / "bundle", Names("a", "team-bundle", "Team bundle", "tiny-competition"))
    sample = tmp_path / "sample.csv"
    sample.write_text(workshop.sample.read_text().replace("0 1", "10 11"))
    scores = {}
    for name, bundle, rows in (
        ("team", tmp_path / "bundle" / "dataset", sample),
        ("theirs", workshop.dataset, workshop.sample),
    ):
        out = tmp_path / f"run {name}" / "submission.csv"
        out.parent.mkdir()
        run(Request(bundle, out, images=workshop.images, sample=rows, predictions=out.parent / "predictions"))
        scores[name] = out.parent / "predictions"
    for model in ("everything", "culture", "tag"):
        theirs = np.load(scores["theirs"] / f"{model}.npy").astype(np.float32)
        ours = np.load(scores["team"] / f"bundle_{model}.npy").astype(np.float32)
        group = next(one.group for one in manifest.models if one.name == f"bundle_{model}")
        before = [name for name in LABELS if group in ("all", name.partition("::")[0])]
        after = [name for name in MIXED if name in before]
        assert np.abs(ours - theirs[:, [before.index(name) for name in after]]).max() < 2e-3
        assert np.abs(ours - theirs).max() > 0.05
    # The bundle's submission names only ids of the first labels.csv.
    answers = (tmp_path / "run team" / "submission.csv").read_text().split("\n")[1:-1]
    assert {label for row in answers for label in row.partition(",")[2].split()} <= {
        str(10 + place) for place in range(5)
    }
    assert "bundle_tag" in capsys.readouterr().out
    # Nothing can be fitted to a bundle's second stage, so it needs a weight.
    with pytest.raises(OptionError) as error:
        merge_zoos(MergeSettings([mine, workshop.dataset / MANIFEST_NAME], tmp_path / "kept", keep_stages=True))
    assert str(error.value) == (
        f"--weights: missing; {workshop.dataset}/weights_manifest.json is a bundle without out-of-fold predictions, so "
        "its weight cannot be fitted; give one weight per manifest, such as --weights 0.7 0.3"
    )


def test_a_team_packs_to_the_same_bytes_on_every_machine_and_attaches_the_other_dataset(
    workshop: Workshop, tmp_path: Path
) -> None:
    home = tmp_path / "mine"
    shutil.copytree(workshop.home, home)
    manifest = read_manifest(home / MANIFEST_NAME)
    own = dataclasses.replace(
        manifest,
        models=manifest.models[:1],
        ensemble=dataclasses.replace(
            manifest.ensemble, weights={group: {"everything": 1.0} for group in ("culture", "tag")}
        ),
    )
    write_manifest(own, home / MANIFEST_NAME)
    merge_zoos(
        MergeSettings([home / MANIFEST_NAME, workshop.dataset / MANIFEST_NAME], tmp_path / "team", weights=(0.5, 0.5))
    )
    names = Names("alice", "team-bundle", "Team bundle", "tiny-competition")
    trees = []
    for machine in ("one", "another"):
        place = tmp_path / machine / "deep"
        shutil.copytree(tmp_path / "team", place / "team")
        export_zoo(place / "team" / MANIFEST_NAME, place / "onnx", workshop.images)
        attach = {"museum-owner/tiny-bundle": workshop.dataset}
        bundle = pack(place / "team" / MANIFEST_NAME, place / "onnx", place / "bundle", names, attach=attach)
        trees.append({path.name: path.read_bytes() for path in (place / "bundle").rglob("*") if path.is_file()})
        # Their files, in the same label order, stay in their dataset; ours has the same bytes as one of theirs.
        assert not list(bundle.dataset.glob("*.onnx"))
    assert trees[0] == trees[1]
