"""The rules of one label, probabilities and numbers, against slow references."""

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from inference.ensemble.fitted_rules import adjust_probabilities, cut_classes, rank_labels, scale_numbers
from inference.manifest.decision import Fitted

RANDOM = np.random.default_rng(0)
CHANCES = softmax(RANDOM.normal(size=(50, 4)), axis=1)


def test_weights_of_labels_change_the_ranks() -> None:
    scores = np.array([[0.5, 0.4, 0.1]], np.float32)
    assert rank_labels(scores, Fitted()) is scores
    assert rank_labels(scores, Fitted(label_weights=(1.0, 2.0, 0.5))) == pytest.approx(np.array([[0.5, 0.8, 0.05]]))


def test_cut_points_choose_the_class_by_the_expected_one() -> None:
    cuts = (0.5, 1.4, 2.7)
    wanted = []
    for row in CHANCES:
        expected = sum(place * chance for place, chance in enumerate(row))
        wanted.append(sum(expected >= cut for cut in cuts))
    assert cut_classes(CHANCES, Fitted(cuts=cuts)).argmax(axis=1).tolist() == wanted
    assert (cut_classes(CHANCES, Fitted(cuts=cuts)).sum(axis=1) == 1).all()


def test_temperature_divides_the_logits() -> None:
    scores = RANDOM.random((20, 3))
    found = adjust_probabilities(scores, Fitted(temperature=1.7))
    np.testing.assert_allclose(found, expit(logit(scores) / 1.7), rtol=1e-9)
    whole = adjust_probabilities(CHANCES, Fitted(temperature=0.6, normalise=True))
    np.testing.assert_allclose(whole, softmax(np.log(CHANCES) / 0.6, axis=1), rtol=1e-9)


def test_probabilities_keep_their_distance_from_0_and_1_and_add_up() -> None:
    scores = np.array([[0.0, 1.0], [0.5, 0.5], [0.0, 0.0]], np.float32)
    assert adjust_probabilities(scores, Fitted(clip=0.01)).tolist() == [[0.01, 0.99], [0.5, 0.5], [0.01, 0.01]]
    np.testing.assert_allclose(adjust_probabilities(scores, Fitted(clip=0.01, normalise=True)).sum(axis=1), 1)
    assert adjust_probabilities(scores, Fitted(normalise=True))[2].tolist() == [0.5, 0.5], "no score at all"
    sharp = adjust_probabilities(scores, Fitted(temperature=0.01, normalise=True))
    assert np.isfinite(sharp).all()


def test_numbers_lie_on_a_line() -> None:
    assert scale_numbers(np.array([[0.5], [2.0]]), Fitted(slope=2.0, intercept=-1.0)).tolist() == [[0.0], [3.0]]
