import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from inference.basics.errors import VitrineError
from inference.ensemble.decide import decide
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from tests.training.merge.team import (
    Team,
    draw_scores,
    list_labels,
    reorder,
    score_kernel,
    write_mine,
)
from training.merge.merge_zoos import MergeSettings, merge_zoos
from zoo.fitted_for import is_stale
from zoo.metrics.scoring import find_scoring
from zoo.tables.out_of_fold import open_zoo
from zoo.tables.train_table import read_table

IMAGES = 40


def score_team(team: Path, zoos: Team, prefixes: tuple[str, str]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the kernel's scores of the team, and of each zoo, on the same random scores of the models."""
    own = [draw_scores(path, IMAGES, seed) for seed, path in enumerate((zoos.mine, zoos.theirs))]
    names, joined = list_labels(team), {}
    for path, prefix, scores in zip((zoos.mine, zoos.theirs), prefixes, own, strict=True):
        joined |= {prefix + name: reorder(path, name, part, names) for name, part in scores.items()}
    alone = [score_kernel(path, scores) for path, scores in zip((zoos.mine, zoos.theirs), own, strict=True)]
    return score_kernel(team, joined), alone


def test_the_kernel_scores_the_weighted_mean_of_both_second_stages_label_by_label(zoos: Team, tmp_path: Path) -> None:
    merge_zoos(MergeSettings([zoos.mine, zoos.theirs], tmp_path / "team", weights=(0.7, 0.3), keep_stages=True))
    team = tmp_path / "team" / MANIFEST_NAME
    found, (mine, theirs) = score_team(team, zoos, ("", "bob_"))
    for place, name in enumerate(list_labels(zoos.mine)):
        column = list_labels(zoos.theirs).index(name)
        for image in range(IMAGES):
            wanted = 0.7 * mine[image, place] + 0.3 * theirs[image, column]
            assert found[image, place] == pytest.approx(wanted, abs=2e-6)
    # The second stages differ, so the mean is not right by chance.
    assert np.abs(mine - theirs[:, [list_labels(zoos.theirs).index(name) for name in list_labels(team)]]).max() > 0.1
    manifest = read_manifest(team)
    assert manifest.decision == read_manifest(zoos.mine).decision
    assert not is_stale(manifest) and manifest.ensemble.out_of_fold is None


def test_the_weights_and_the_decision_are_fitted_to_common_images_and_do_not_depend_on_who_merges(
    zoos: Team, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, reports, teams = zoos.mine.parent / "train.csv", [], []
    for name, paths in (("one", [zoos.mine, zoos.theirs]), ("two", [zoos.theirs, zoos.mine])):
        own_train = paths[0].parent / "train.csv"
        prefixes = ("a_", "b_") if name == "one" else ("b_", "a_")
        merge_zoos(MergeSettings(paths, tmp_path / name, train=own_train, prefixes=prefixes, keep_stages=True))
        reports.append(capsys.readouterr().out)
        teams.append(tmp_path / name / MANIFEST_NAME)
    figures = [[line for line in report.splitlines() if line.startswith("  ")] for report in reports]
    assert figures[0] == figures[1]
    one, two = map(read_manifest, teams)
    assert {group: one.decision.groups[group] for group in ("culture", "tag")} == dict(two.decision.groups)
    (first, _), (second, _) = score_team(teams[0], zoos, ("a_", "b_")), score_team(teams[1], zoos, ("a_", "b_"))
    order = [list_labels(teams[1]).index(name) for name in list_labels(teams[0])]
    assert np.abs(first - second[:, order]).max() < 2e-6
    answers = [
        decide(scores, open_zoo(path).labels, open_zoo(path).manifest.decision)
        for scores, path in ((first, teams[0]), (second, teams[1]))
    ]
    assert (answers[0] == answers[1][:, order]).all() and answers[0].any()
    # The scores that the team's zoo declares are those of its kernel, so that it can be merged again.
    zoo = open_zoo(teams[0])
    assert zoo.manifest.ensemble.out_of_fold is not None and not is_stale(zoo.manifest)
    declared = np.load(zoo.home / zoo.manifest.ensemble.out_of_fold.scores.file)
    kept = {
        tag: np.load(path.parent / "second_stage/scores.oof.npy").astype(np.float32)
        for tag, path in (("mine", zoos.mine), ("theirs", zoos.theirs))
    }
    shares = {
        group: sum(weight for part, weight in given.items() if part.startswith(("a_", "alice_")))
        for group, given in zoo.manifest.ensemble.mix.items()
    }
    theirs = kept["theirs"][:, [list_labels(zoos.theirs).index(name) for name in zoo.labels.names]]
    for group, share in shares.items():
        columns = list(zoo.labels.columns(group))
        wanted = share * kept["mine"][:, columns] + (1 - share) * theirs[:, columns]
        assert np.abs(declared[:, columns] - wanted).max() < 1e-3  # float16
    table = read_table(train, zoo.labels, zoo.manifest.task)
    score = find_scoring(zoo.manifest.task).score(
        decide(declared.astype(np.float32), zoo.labels, zoo.manifest.decision), table.targets
    )
    assert score > 0.8 and zoo.manifest.decision.fallback


def test_a_zoo_without_scores_of_its_second_stage_cannot_be_fitted(zoos: Team, tmp_path: Path) -> None:
    plain = write_mine(tmp_path / "plain")
    with pytest.raises(VitrineError) as error:
        merge_zoos(
            MergeSettings([zoos.mine, plain], tmp_path / "team", train=plain.parent / "train.csv", keep_stages=True)
        )
    assert str(error.value) == (
        f"{plain}: `ensemble.out_of_fold`: missing; run `build_kernel.py ensemble --manifest {plain}` first, or give "
        "the weights of the zoos with --weights"
    )
    assert not (tmp_path / "team").exists() and not list(tmp_path.glob(".team*"))
    with pytest.raises(VitrineError) as error:
        merge_zoos(MergeSettings([zoos.mine, plain], tmp_path / "team", keep_stages=True))
    assert str(error.value) == (
        "--keep-stages: wanted --train train.csv too, to fit the weights, or --weights to give them"
    )


def test_a_zoo_with_only_a_blend_joins_the_mix(zoos: Team, tmp_path: Path) -> None:
    plain = write_mine(tmp_path / "plain")
    merge_zoos(
        MergeSettings([zoos.mine, plain], tmp_path / "team", weights=(1, 3), prefixes=("", "p_"), keep_stages=True)
    )
    team = read_manifest(tmp_path / "team" / MANIFEST_NAME)
    assert team.ensemble.mix["tag"] == pytest.approx({"cnn_tag": 0.15, "trees": 0.1, "plain_blend": 0.75})
    assert [stacker.name for stacker in team.ensemble.stackers] == ["cnn_tag", "trees"]
    assert {stacker.blend for stacker in team.ensemble.stackers} == {"alice_blend"}
    found, (mine, theirs) = score_team(
        tmp_path / "team" / MANIFEST_NAME, dataclasses.replace(zoos, theirs=plain), ("", "p_")
    )
    assert np.abs(found - 0.25 * mine - 0.75 * theirs).max() < 2e-6


def test_a_merged_zoo_is_merged_again(zoos: Team, tmp_path: Path) -> None:
    plain = write_mine(tmp_path / "plain")
    first, second = tmp_path / "first", tmp_path / "second"
    merge_zoos(MergeSettings([zoos.mine, zoos.theirs], first, weights=(0.5, 0.5), keep_stages=True))
    merge_zoos(
        MergeSettings([plain, first / MANIFEST_NAME], second, weights=(0.5, 0.5), prefixes=("p_", ""), keep_stages=True)
    )
    pair = Team(plain, first / MANIFEST_NAME)
    found, (mine, theirs) = score_team(second / MANIFEST_NAME, pair, ("p_", ""))
    assert np.abs(found - 0.5 * mine - 0.5 * theirs).max() < 2e-6


def test_a_zoo_weighs_nothing_in_a_group_that_it_does_not_cover(zoos: Team, tmp_path: Path) -> None:
    plain = write_mine(tmp_path / "tags")
    document = json.loads(plain.read_text())
    document["models"] = [document["models"][2]]
    document["ensemble"]["weights"] = {"culture": {}, "tag": {"tags": 1.0}}
    plain.write_text(json.dumps(document))
    write_manifest(read_manifest(plain), plain)
    merge_zoos(
        MergeSettings([zoos.mine, plain], tmp_path / "team", weights=(1, 1), prefixes=("", "t_"), keep_stages=True)
    )
    mix = read_manifest(tmp_path / "team" / MANIFEST_NAME).ensemble.mix
    assert mix["culture"] == pytest.approx({"alice_blend": 0.7, "trees": 0.3})
    assert mix["tag"] == pytest.approx({"cnn_tag": 0.3, "trees": 0.2, "tags_blend": 0.5})
