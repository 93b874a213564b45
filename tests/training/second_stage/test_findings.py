import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.manifest.task import Metric
from tests.training.second_stage.drawn import TASKS, draw_members, name_labels
from training.second_stage.findings import Confused, find_confused, measure_errors, score_thresholds, slice_by_frequency
from zoo.metrics.f_beta import THRESHOLDS


@pytest.mark.parametrize("average", ["samples", "micro", "macro"])
def test_a_curve_has_the_f_of_each_threshold(average: str) -> None:
    members = draw_members(TASKS["micro F2"], 60)
    scores, truth = members.scores[:, 0].astype(np.float32), members.truth
    found = score_thresholds(scores, truth, Metric(beta=0.5, average=average))  # type: ignore[arg-type]
    rows = truth.any(axis=1) if average == "samples" else np.ones(60, np.bool_)
    for place in (20, 99, 160):
        above = scores[rows] >= np.float32(THRESHOLDS[place])
        wanted = fbeta_score(truth[rows], above, beta=0.5, average=average, zero_division=0)
        assert found[place] == pytest.approx(wanted)


def test_confused_classes_are_counted() -> None:
    labels = name_labels(TASKS["accuracy"])
    classes, answers = np.array([0, 0, 0, 0, 1, 1, 2, 3]), np.array([0, 2, 2, 1, 1, 0, 2, 3])
    marks = np.eye(5, dtype=np.bool_)
    assert find_confused(marks[answers], marks[classes], labels) == (
        Confused("kind a", "kind c", 2, 0.5),
        Confused("kind a", "kind b", 1, 0.25),
        Confused("kind b", "kind a", 1, 0.5),
    )
    assert find_confused(marks[classes], marks[classes], labels) == ()


def test_errors_are_in_the_units_of_the_competition() -> None:
    values, truth = np.array([[0.5], [0.1]], np.float32), np.array([[0.25], [0.15]], np.float32)
    found = measure_errors(values, truth, TASKS["RMSE"])
    assert found["mean error"] == pytest.approx(10)
    assert found["mean absolute error"] == pytest.approx(15)
    assert found["50% of errors are at most"] == pytest.approx(15)


def test_labels_are_sliced_by_their_number_of_images() -> None:
    truth = np.zeros((1200, 4), np.bool_)
    truth[:1100, 0] = truth[:20, 1] = truth[:19, 2] = True
    selected = truth.copy()
    selected[:10, 1] = False
    slices = slice_by_frequency({"blend": selected}, truth, beta=1.0)
    assert [(one.name, one.labels) for one in slices] == [("fewer than 20", 1), ("20 to 99", 1), ("1000 or more", 1)]
    assert [one.scores["blend"] for one in slices] == pytest.approx([1, 2 / 3, 1])
