import pytest

from inference.manifest.labels import Labels
from inference.manifest.task import Task
from tests.training.second_stage.drawn import TASKS
from training.second_stage.fitted import LayerSettings
from training.second_stage.stackers.suited import choose_layers

NUMBERS = "stackers are fitted to probabilities, and the scores of this task are numbers"
SAME = "there is one group of labels, so it would be the same network"
ONE = "there is one label, so a pair of image and label has no other labels to be compared with"


def make_labels(size: int, groups: int = 1) -> Labels:
    names = tuple(map(str, range(size)))
    owned = {f"group {place}": tuple(range(place, size, groups)) for place in range(groups)}
    return Labels(tuple(range(size)), names, owned)


@pytest.mark.parametrize(
    ("task", "labels", "fitted", "left_out"),
    [
        (Task(), make_labels(1103, 2), ("cnn", "together", "trees"), {}),
        (TASKS["accuracy"], make_labels(5), ("cnn", "trees"), {"cnn_all": SAME}),
        (TASKS["ROC AUC"], make_labels(5), ("cnn", "trees", "ranks"), {"cnn_all": SAME}),
        (TASKS["log loss of one"], make_labels(1), ("cnn",), {"cnn_all": SAME, "trees": ONE}),
        (TASKS["RMSE"], make_labels(1), (), {"cnn_apart": NUMBERS, "trees": NUMBERS}),
        (
            TASKS["macro F1"],
            make_labels(64_500),
            (),
            {
                "cnn_apart": "about 7.4 GB of memory for 64,500 labels; at most 5,000 are supported",
                "trees": "about 61.9 GB of memory for 64,500 labels; at most 5,000 are supported",
            },
        ),
    ],
)
def test_what_does_not_suit_is_left_out_with_the_reason(
    task: Task, labels: Labels, fitted: tuple[str, ...], left_out: dict[str, str]
) -> None:
    chosen, reasons = choose_layers(LayerSettings(), task, labels, images=40_000, members=3)
    assert tuple(name for name in ("cnn", "together", "trees", "ranks") if getattr(chosen, name)) == fitted
    assert reasons == left_out


def test_what_was_not_wanted_needs_no_reason() -> None:
    chosen, reasons = choose_layers(
        LayerSettings(cnn=False, trees=False, seed=3), TASKS["log loss of one"], make_labels(1), images=9, members=1
    )
    assert (chosen.cnn, chosen.together, chosen.trees, chosen.seed, reasons) == (False, False, False, 3, {})


def test_stackers_without_members_are_left_out_with_the_reason() -> None:
    few = "no member of group 0 and group 1 held out at least 50% of the images"
    chosen, reasons = choose_layers(
        LayerSettings(), Task(), make_labels(20, 2), images=90, members=0, unread=["group 0", "group 1"]
    )
    assert (chosen.cnn, chosen.together, chosen.trees) == (False, False, False)
    assert reasons == {"cnn_apart": few, "trees": few}
