import numpy as np
import pytest

from demo.report_groups import score_groups, score_selected
from inference.manifest.labels import Labels

LABELS = Labels((0, 1, 2, 3), ("c::a", "c::b", "t::c", "t::d"), {"c": (0, 1), "t": (2, 3)})


def test_f2_is_the_metric_of_the_competition() -> None:
    truth = np.array([[1, 0, 1, 0], [0, 1, 0, 0]], bool)
    selected = np.array([[1, 1, 0, 0], [0, 1, 0, 1]], bool)
    # Image 1: one of two true labels selected, one false: 5/(4*2+2); image 2: one of one, one false: 5/(4+2).
    assert score_selected(selected, truth, "all", LABELS, 2.0)["all"] == pytest.approx((5 / 10 + 5 / 6) / 2)
    assert score_selected(selected, truth, "t", LABELS, 2.0) == {"t": pytest.approx(0)}, (
        "image 2 has no label of the group"
    )


def test_a_model_of_one_group_has_an_f2_of_that_group_only() -> None:
    truth = np.array([[1, 0, 1, 0], [0, 1, 0, 1]], bool)
    assert score_groups(np.array([[0.9, 0.1], [0.2, 0.8]]), truth, 0.5, "c", LABELS, 2.0) == {"c": pytest.approx(1)}
