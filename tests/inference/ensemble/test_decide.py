import dataclasses

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.ensemble.blend import blend
from inference.ensemble.decide import decide, decide_group, list_label_ids
from inference.manifest.file import read_manifest
from inference.manifest.labels import Labels
from inference.manifest.records import Decision, Ensemble, GroupDecision
from inference.models.views import VIEWS
from tests.conftest import Workshop

LABELS = Labels((10, 11, 12, 20, 21), ("c::a", "t::b", "c::d", "t::e", "t::f"), {"c": (0, 2), "t": (1, 3, 4)})


def decide_slowly(scores: np.ndarray, rule: GroupDecision) -> list[list[bool]]:
    """Select labels image by image, as the manifest defines it."""
    selected = []
    for row in scores.tolist():
        ranked = sorted(range(len(row)), key=lambda column: (-row[column], column))
        given = [column for column in ranked[: rule.maximum] if row[column] >= rule.threshold]
        chosen = set(given) | set(ranked[: rule.minimum])
        selected.append([column in chosen for column in range(len(row))])
    return selected


def test_decisions_agree_with_one_label_at_a_time() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        scores = random.integers(0, 8, (5, 6)) / 8  # many ties
        minimum = int(random.integers(0, 4))
        rule = GroupDecision(float(random.integers(0, 9)) / 8, minimum, int(random.integers(max(minimum, 1), 7)))
        assert decide_group(scores, rule).tolist() == decide_slowly(scores, rule)


def test_an_image_below_all_thresholds_gets_the_label_of_the_highest_score() -> None:
    strict = Decision({"c": GroupDecision(0.9, 0, 2), "t": GroupDecision(0.9, 0, 2)}, (10,))
    scores = np.array([[0.1, 0.2, 0.1, 0.3, 0.2], [0.95, 0, 0, 0, 0]])
    assert list_label_ids(decide(scores, LABELS, strict), LABELS) == [(20,), (10,)]


def test_label_ids_ascend_for_any_order_of_labels_csv() -> None:
    labels = dataclasses.replace(LABELS, ids=(30, 2, 25, 1, 7))
    assert list_label_ids(np.ones((1, 5), bool), labels) == [(1, 2, 7, 25, 30)]


def test_the_blend_is_the_weighted_mean_of_the_models_that_cover_a_group(workshop: Workshop) -> None:
    manifest = read_manifest(workshop.manifest)
    weights = {"culture": {"everything": 1.0, "culture": 3.0}, "tag": {"everything": 2.0, "tag": 0.0}}
    manifest = dataclasses.replace(manifest, ensemble=Ensemble(weights))
    labels = Labels(tuple(range(5)), ("",) * 5, {"culture": (0, 1), "tag": (2, 3, 4)})
    random = np.random.default_rng(1)
    scores = {
        name: random.random((7, columns)).astype(np.float16)
        for name, columns in (("everything", 5), ("culture", 2), ("tag", 3))
    }
    whole, culture = scores["everything"].astype(np.float64), scores["culture"].astype(np.float64)
    blended = blend(scores, manifest, labels)
    assert np.allclose(blended[:, :2], (whole[:, :2] + 3 * culture) / 4, atol=1e-6)
    assert np.allclose(blended[:, 2:], whole[:, 2:], atol=1e-6), "a weight of 0 excludes a model"


def test_the_blend_ignores_models_without_predictions_and_is_nan_without_any(
    workshop: Workshop,
) -> None:
    manifest = read_manifest(workshop.manifest)
    weights = {"culture": {"everything": 1.0, "culture": 3.0}, "tag": {"everything": 2.0, "tag": 5.0}}
    manifest = dataclasses.replace(manifest, ensemble=Ensemble(weights))
    labels = Labels(tuple(range(5)), ("",) * 5, {"culture": (0, 1), "tag": (2, 3, 4)})
    random = np.random.default_rng(4)
    columns = {"everything": (0, 1, 2, 3, 4), "culture": (0, 1), "tag": (2, 3, 4)}
    scores = {name: random.random((30, len(own))).astype(np.float16) for name, own in columns.items()}
    for array in scores.values():
        array[random.random(30) < 0.5] = np.nan
    blended = blend(scores, manifest, labels)
    for row, label in np.ndindex(blended.shape):
        group = "culture" if label < 2 else "tag"
        known = [
            (weight, float(scores[name][row, columns[name].index(label)]))
            for name, weight in weights[group].items()
            if not np.isnan(scores[name][row, 0])
        ]
        if known:
            mean = sum(weight * score for weight, score in known) / sum(weight for weight, _ in known)
            assert blended[row, label] == pytest.approx(mean, abs=1e-6)
        else:
            assert np.isnan(blended[row, label])
    assert 0 < np.isnan(blended[:, 0]).sum() < 30


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_applied_twice_is_the_identity(view: str) -> None:
    batch = np.random.default_rng(2).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    shown = VIEWS[view]  # type: ignore[index]
    assert np.array_equal(shown(shown(batch)), batch)


def test_hflip_swaps_left_and_right() -> None:
    batch = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    assert np.array_equal(VIEWS["hflip"](batch), np.flip(batch, axis=2))


def test_a_lower_threshold_selects_more_labels_and_scikit_learn_gives_a_higher_f2() -> None:
    random = np.random.default_rng(3)
    scores, truth = random.random((50, 5)), random.random((50, 5)) < 0.4
    truth[:, 0] |= ~truth.any(axis=1)
    found = []
    for threshold in (0.8, 0.5, 0.2):
        rule = GroupDecision(threshold, 0, 5)
        selected = decide(scores, LABELS, Decision({"c": rule, "t": rule}, (10,)))
        found.append((int(selected.sum()), fbeta_score(truth, selected, beta=2, average="samples")))
    assert found == sorted(found)
