import dataclasses

import numpy as np

from inference.task.answers import list_answers
from tests.inference.task.tasks import IMET, IMET_LABELS, NUMBER, RANKED, WIDE, make_labels


def test_label_ids_ascend_for_any_order_of_labels_csv() -> None:
    labels = dataclasses.replace(IMET_LABELS, ids=(30, 2, 25))
    assert list_answers(np.ones((1, 3), bool), labels, IMET) == [(2, 25, 30)]


def test_a_ranked_list_has_the_best_labels_first_and_equal_ones_in_their_order() -> None:
    labels = make_labels(*"abcd", first=10)
    scores = np.array([[0.1, 0.4, 0.1, 0.4], [0, 0, 0, 0], [0.3, 0.2, 0.9, 0.1]], np.float32)
    assert list_answers(scores, labels, RANKED) == [(11, 13, 10), (10, 11, 12), (12, 10, 11)]


def test_numbers_are_in_the_units_of_the_competition_and_probabilities_as_they_are() -> None:
    assert [list(one) for one in list_answers(np.array([[0.0], [1.0], [1.1]]), make_labels("y"), NUMBER)] == [
        [1.0],
        [101.0],
        [111.00000000000001],
    ]
    (row,) = list_answers(np.array([[0.25, 0.75]], np.float32), make_labels("a", "b"), WIDE)
    assert list(row) == [0.25, 0.75]
