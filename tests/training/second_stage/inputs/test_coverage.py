import dataclasses

import numpy as np
import pytest

from inference.manifest.labels import Labels
from inference.manifest.model import Factory, Model, Resize
from inference.manifest.task import Task
from training.second_stage.fitted import LayerSettings
from training.second_stage.inputs.coverage import describe_members, list_inputs, list_split_members, list_unread_groups
from training.second_stage.member_scores import MemberScores, measure_coverage

LABELS = Labels((0, 1, 2), ("culture::greek", "tag::boats", "tag::trees"), {"culture": (0,), "tag": (1, 2)})
MODEL = Model("a", "test_resnet", "all", 32, (0.5,), (0.5,), "bicubic", fold=0)


def make_members(culture: int, tag: int, eyes: int) -> MemberScores:
    """Return ten images; the arguments are how many of them three members held out, beside one that held out all."""
    known = np.stack([np.arange(10) < count for count in (10, culture, tag)], axis=1)
    outputs = np.where(np.arange(10)[:, None] < eyes, 0.5, np.nan).astype(np.float32)
    truth = np.zeros((10, 3), np.bool_)
    truth[:, 1] = True
    members = MemberScores(
        ("all", "culture", "tag"),
        (("culture", "tag"), ("culture",), ("tag",)),
        np.arange(10),
        np.where(known[:, :, None], 0.5, np.nan) * np.ones((10, 3, 3)),
        truth,
        np.zeros((10, 4), np.float32),
        {"eyes": outputs},
    )
    return dataclasses.replace(members, coverage=measure_coverage(members, known))


def test_the_table_has_what_each_member_is_used_for() -> None:
    members = make_members(5, 4, 6)
    shown = describe_members(members, list_inputs(members, LayerSettings()), LABELS, Task())
    assert shown.split("\n") == [
        "3 members, 10 images with scores for every group, each held out by 1 to 3 of the members",
        "member   groups        use                                                    images  share",
        "all      culture, tag  blend and stackers                                         10   100%",
        "culture  culture       blend and stackers                                          5    50%",
        "tag      tag           blend; not the stackers: fewer than 50% of the images       4    40%",
        "eyes     -             features, read by the trees                                 6    60%",
        "2 labels have no image and keep the blend's score: culture::greek, tag::trees",
    ]


@pytest.mark.parametrize(
    ("settings", "uses"),
    [
        (LayerSettings(trees=False), ("blend and stackers", "not read: no trees are fitted")),
        (LayerSettings(cnn=False, trees=False), ("blend", "not read: no trees are fitted")),
        (LayerSettings(), ("blend and stackers", "not read: fewer than 50% of the images")),
    ],
)
def test_what_is_not_read_has_a_reason(settings: LayerSettings, uses: tuple[str, str]) -> None:
    first, *_, last = list_inputs(make_members(10, 10, 4), settings)
    assert (first.use, last.use) == uses
    assert (last.images, last.share, last.groups) == (4, 0.4, ())


def test_full_coverage_is_said() -> None:
    members = make_members(10, 10, 10)
    assert members.coverage is None
    shown = describe_members(members, list_inputs(members, LayerSettings()), LABELS, Task())
    assert shown.startswith("3 members, 10 images held out by all of them\n")


def test_a_group_without_a_member_for_stackers_is_listed() -> None:
    members = make_members(5, 4, 6)
    assert list_unread_groups(members, LABELS) == []
    assert members.coverage is not None
    alone = dataclasses.replace(members, coverage=dataclasses.replace(members.coverage, stacked=("culture",)))
    assert list_unread_groups(alone, LABELS) == ["tag"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, [["a", "b", "c"]]),
        ({"member": "net"}, [["a", "c"]]),
        ({"fold": 0}, []),
        ({"fold": None}, [["a", "c"]]),
        ({"architecture": "test_vit"}, [["a", "c"]]),
        ({"image_size": (32, 48)}, [["a", "c"]]),
        ({"group": "tag"}, [["a", "c"]]),
        ({"resize": Resize("crop", 0.875)}, [["a", "c"]]),
        ({"factory": Factory("net.py", "a" * 64, "build")}, [["a", "c"]]),
    ],
)
def test_what_looks_like_folds_of_one_network(changes: dict[str, object], found: list[list[str]]) -> None:
    second = dataclasses.replace(MODEL, **({"name": "b", "fold": 1} | changes))
    assert list_split_members([MODEL, second, dataclasses.replace(MODEL, name="c", fold=2)]) == found
