"""The gathered input, against the arrays that were written."""

import json
from pathlib import Path

import numpy as np
import pytest

from inference.basics.errors import TrainingError
from tests.training.second_stage.drawn import TASKS, draw_eyes, draw_images, name_labels, write_zoo
from training.second_stage.member_scores import MemberScores, gather_scores
from zoo.tables.out_of_fold import open_zoo
from zoo.tables.train_table import read_table

TASK = TASKS["accuracy"]


def gather(folder: Path, images: int, held_out: dict[str, range], *, eyes: bool = False) -> MemberScores:
    zoo = write_zoo(folder, TASK, images, held_out=held_out, eyes=eyes)
    return gather_scores(open_zoo(zoo.manifest), read_table(zoo.train, name_labels(TASK), TASK))


def test_an_image_of_any_member_is_used_and_missing_scores_are_nan(tmp_path: Path) -> None:
    held_out = {"good": range(10, 40), "fair": range(0, 25), "noise": range(30, 45)}
    members = gather(tmp_path, 60, held_out, eyes=True)
    truth, scores = draw_images(TASK, 60, 0)
    assert members.rows.tolist() == list(range(45))
    assert np.array_equal(members.truth, truth[:45])
    for place, name in enumerate(members.names):
        for row in range(45):
            own = members.scores[row, place]
            assert np.array_equal(own, scores[name][row]) if row in held_out[name] else np.isnan(own).all()
        assert members.list_held_out(name).tolist() == [row in held_out[name] for row in range(45)]
    assert np.array_equal(members.features["eyes"], draw_eyes(truth, 0)[:45])
    assert members.coverage is not None
    assert members.coverage.whole == () and members.coverage.stacked == ("good", "fair", "eyes")
    assert members.stacked == ("good", "fair") and members.stacked_features == ("eyes",)


def test_a_part_of_the_images_keeps_what_belongs_to_them(tmp_path: Path) -> None:
    members = gather(tmp_path, 30, {"good": range(10), "eyes": range(20)}, eyes=True)
    part = members.take(np.array([5, 15, 25]))
    assert part.list_held_out("good").tolist() == [True, False, False]
    assert part.list_held_out("eyes").tolist() == [True, True, False]
    assert np.isnan(part.join_features(["eyes"])).any(axis=1).tolist() == [False, False, True]
    assert part.join_features([]).shape == (3, 0)
    assert part.leave_out("fair").list_held_out("fair").all(), "left out, though it held out the images"


def test_members_that_held_out_everything_have_no_coverage(tmp_path: Path) -> None:
    assert gather(tmp_path, 20, {}, eyes=True).coverage is None


def test_folds_of_a_network_for_features_must_not_share_an_image(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path, TASK, 20, eyes=True)
    document = json.loads(zoo.manifest.read_text())
    first = document["models"][-1]
    document["models"][-1] = {**first, "fold": 0, "member": "pair"}
    document["models"].append({**first, "name": "ears", "fold": 1, "member": "pair"})
    zoo.manifest.write_text(json.dumps(document))
    with pytest.raises(TrainingError) as caught:
        gather_scores(open_zoo(zoo.manifest), read_table(zoo.train, name_labels(TASK), TASK))
    assert str(caught.value) == (
        "models eyes and ears: both held out image image 0.jpg; the folds of one member must not share an image, "
        "because one of them was trained on it"
    )


def test_a_zoo_of_features_alone_has_nothing_to_blend(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path, TASK, 20, eyes=True)
    document = json.loads(zoo.manifest.read_text())
    document["models"] = document["models"][-1:]
    document["ensemble"]["weights"] = {"labels": {}}
    zoo.manifest.write_text(json.dumps(document))
    with pytest.raises(TrainingError) as caught:
        gather_scores(open_zoo(zoo.manifest), read_table(zoo.train, name_labels(TASK), TASK))
    assert str(caught.value) == f"{zoo.manifest}: found no model with scores for labels; wanted at least one"
